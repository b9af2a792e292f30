"""Tokens that leave early still fill in the keys of the layers above. CALM, Schuster et al. 2022, arXiv:2207.07061."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers import MLP, Attention, Block, ConfigError, CrossAttention, Decoder, Encoder, EncoderDecoder, stack
from formers.call import Call, Layer, Out, add_losses, skip
from formers.places import Places
from formers.spec import Site


class SketchExits(Layer):
    """A token leaves after the first block at which its best token is `threshold` likelier than the second best.

    While training, all run to the end, and the record "exits" holds the hidden states after every block.
    """

    blocks: tuple[Block, ...]
    threshold: float

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        for block in self.blocks:
            if any(isinstance(sublayer, Attention) for sublayer in block.sublayers[1:]):
                what = "a token that skips this block has no input for attention that reads what another sublayer wrote"
                yield what, "one Attention in each block, as its first sublayer"

    def build(self, site: Site) -> nn.Module:
        return SketchExitsLayer(self, site)


class SketchExitsLayer(nn.Module):
    def __init__(self, spec: SketchExits, site: Site) -> None:
        super().__init__()
        self.spec = spec
        self.blocks = nn.ModuleList(block.build(site.part(i)) for i, block in enumerate(spec.blocks))

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        depth, states, exits, losses = len(self.blocks), [], [], {}
        leaves = torch.full(x.shape[:2], depth) if choices is None else choices  # after how many blocks
        for i, block in enumerate(self.blocks):
            past, stays = None if state is None else state[i], leaves > i
            if stays.any():
                out = block(x, call, past)
                x = torch.where(stays[..., None], out.y, x)
                states.append(out.state)
                losses = add_losses(losses, out.losses)
            else:
                states.append(skip(block, x, call, past))
            exits.append(x)
            if choices is None and not self.training and i + 1 < depth:
                leaves = torch.where(stays & self.confident(x, call), i + 1, leaves)
        records = {"leaves": (leaves,)} | ({"exits": tuple(exits)} if self.training else {})
        return Out(x, tuple(states), losses, leaves, records)

    def confident(self, x: Tensor, call: Call) -> Tensor:
        first, second = call.read(x).softmax(-1).topk(2).values.unbind(-1)
        return first - second >= self.spec.threshold


def exits(threshold: float, *sublayers: Layer) -> tuple[Layer, ...]:
    return (SketchExits(stack(Block(sublayers), times=4), threshold),)


def awake(model: nn.Module) -> nn.Module:
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            nn.init.normal_(parameter, std=0.8)
    return model.eval()


def decoder(threshold: float) -> Decoder:
    return Decoder("calm", 7, 8, exits(threshold, Attention(2), MLP(8)))


def steps(model: nn.Module, tokens: Tensor, state: Any = None) -> tuple[Tensor, Tensor]:
    """Logits, and where each token left."""
    logits, leaves = [], []
    for t in range(tokens.shape[1]):
        out = model.step(tokens[:, t : t + 1], state)
        state = out.state
        logits.append(out.logits)
        leaves += [noted for name, all_ in out.records.items() for noted in all_ if name.endswith("leaves")]
    return torch.cat(logits, 1), torch.cat(leaves, 1)


def test_decoding_equals_copying_the_hidden_state_upward() -> None:
    model, tokens = awake(decoder(0.7).build(streaming=True)), torch.randint(7, (16, 14))
    most_varied = max(model(tokens).records["leaves"][0], key=lambda row: len(row.unique()))
    tokens = tokens[(model(tokens).records["leaves"][0] == most_varied).all(1)][:1]
    runs: list[int] = []
    for block in model.stack.blocks[0].blocks:
        block.sublayers[1].register_forward_hook(lambda *_: runs.append(1))
    logits, leaves = steps(model, tokens)
    assert len(leaves.unique()) >= 3 and len(runs) == leaves.sum()  # nothing was computed after a token had left

    hidden = model.embedding.tokens(tokens)
    call = Call(Places.run(0, 14), read=model.read)
    for i, block in enumerate(model.stack.blocks[0].blocks):
        hidden = torch.where((leaves > i)[..., None], block(hidden, call).y, hidden)
    torch.testing.assert_close(logits, model.read(hidden))
    whole = model(tokens)
    torch.testing.assert_close(whole.logits, logits)
    assert torch.equal(whole.records["leaves"][0], leaves)


def test_beside_an_encoder_whose_keys_are_made_even_if_the_first_token_leaves_at_once() -> None:
    source = Encoder("source", 7, 8, stack(Block((Attention(2),)), times=1))
    target = Decoder("target", 7, 8, exits(0.7, Attention(2), CrossAttention(2), MLP(8)))
    model = awake(EncoderDecoder("calm", source, target).build(streaming=True))
    words, tokens = torch.randint(7, (8, 5)), torch.randint(7, (8, 9))
    leaves = model(words, tokens).records["target.leaves"][0]
    row = (leaves[:, 0] < leaves.amax(1)).nonzero()[:1, 0]
    logits, found = steps(model, tokens[row], model.start(words[row]))
    assert torch.equal(found, leaves[row])
    torch.testing.assert_close(logits, model(words[row], tokens[row]).logits)


def test_every_exit_is_trained() -> None:
    model, tokens = awake(decoder(0.5).build()).train(), torch.randint(7, (2, 10))
    out = model(tokens[:, :-1])
    hidden = out.records["exits"]
    weights = torch.arange(1.0, len(hidden) + 1) / sum(range(len(hidden) + 1))
    losses = [F.cross_entropy(model.read(h).flatten(0, 1), tokens[:, 1:].flatten()) for h in hidden]
    torch.testing.assert_close(losses[-1], F.cross_entropy(out.logits.flatten(0, 1), tokens[:, 1:].flatten()))
    last = list(model.stack.blocks[0].blocks[-1].parameters())
    assert all(g is None for g in torch.autograd.grad(losses[0], last, retain_graph=True, allow_unused=True))
    (weights * torch.stack(losses)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_attention_that_reads_what_was_skipped_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no input for attention"):
        Decoder("calm", 7, 8, exits(0.9, Attention(2), Attention(2))).build()
