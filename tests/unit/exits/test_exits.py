"""Tokens that leave early still fill in the keys of the layers above. CALM, Schuster et al. 2022, arXiv:2207.07061."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from formers import (
    MLP,
    Attention,
    Block,
    ConfigError,
    CrossAttention,
    Decoder,
    Encoder,
    EncoderDecoder,
    Recomputed,
    Untied,
    stack,
)
from formers.call import Call, Layer
from formers.exits import ExitRule, Exits, Left, Saturation, SoftmaxResponse
from formers.places import Places

LAYERS = (Attention(2), MLP(8))


@pytest.fixture(autouse=True)
def exact_and_repeatable() -> Any:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def exits(rule: ExitRule, *sublayers: Layer, **fields: Any) -> tuple[Layer, ...]:
    return (Exits(stack(Block(sublayers), times=4), rule, **fields),)


def awake(model: nn.Module) -> Any:
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            nn.init.normal_(parameter, std=0.8)
    return model.eval()


def decoder(rule: ExitRule, **fields: Any) -> Decoder:
    return Decoder("calm", 7, 8, exits(rule, *LAYERS, **fields))


def steps(model: Any, tokens: Tensor, state: Any = None) -> tuple[Tensor, Tensor]:
    """Logits, and where each token left."""
    logits, leaves = [], []
    for t in range(tokens.shape[1]):
        out = model.step(tokens[:, t : t + 1], state)
        state = out.state
        logits.append(out.logits)
        leaves += [noted for name, all_ in out.records.items() for noted in all_ if name.endswith("leaves")]
    return torch.cat(logits, 1), torch.cat(leaves, 1)


@pytest.mark.parametrize("rule", [SoftmaxResponse(0.7), Saturation(0.9)], ids=repr)
def test_decoding_equals_copying_the_hidden_state_upward(rule: ExitRule) -> None:
    model, tokens = awake(decoder(rule).build(streaming=True)), torch.randint(7, (16, 14))
    most_varied = max(model(tokens).records["leaves"][0], key=lambda row: len(row.unique()))
    tokens = tokens[(model(tokens).records["leaves"][0] == most_varied).all(1)][:1]
    runs: list[int] = []
    for block in model.stack.blocks[0].blocks:
        block.sublayers[1].register_forward_hook(lambda *_: runs.append(1))
    logits, leaves = steps(model, tokens)
    assert len(leaves.unique()) >= 3
    assert len(runs) == leaves.sum()  # nothing was computed after a token had left

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
    target = Decoder("target", 7, 8, exits(SoftmaxResponse(0.7), Attention(2), CrossAttention(2), MLP(8)))
    model = awake(EncoderDecoder("calm", source, target).build(streaming=True))
    words, tokens = torch.randint(7, (8, 5)), torch.randint(7, (8, 9))
    leaves = model(words, tokens).records["target.leaves"][0]
    row = (leaves[:, 0] < leaves.amax(1)).nonzero()[:1, 0]
    logits, found = steps(model, tokens[row], model.start(words[row]))
    assert torch.equal(found, leaves[row])
    torch.testing.assert_close(logits, model(words[row], tokens[row]).logits)


def test_separate_classifiers_read_what_left_at_their_exit() -> None:
    model = awake(decoder(SoftmaxResponse(0.6), heads=Untied()).build())
    layer, tokens = model.stack.blocks[0], torch.randint(7, (4, 12))
    out = model(tokens)
    leaves, (hidden, *_) = (
        out.records["leaves"][0],
        layer(model.embedding.tokens(tokens), Call(Places.run(0, 12), read=model.read)),
    )
    assert len(leaves.unique()) == 4
    for number in range(4):
        at = leaves == number + 1
        torch.testing.assert_close(out.logits[at], layer.reader(number, model.read)(hidden[at]))
    assert (out.logits - model.read(hidden))[leaves < 4].abs().amin(0).max() > 0
    masked = model(tokens, logits_at=leaves == 2)
    torch.testing.assert_close(masked.logits, out.logits[leaves == 2])


def test_given_exits_are_obeyed_and_padding_runs_through_nothing() -> None:
    model, tokens = awake(decoder(SoftmaxResponse(0.5)).build()), torch.randint(7, (2, 6))
    layer, x = model.stack.blocks[0], torch.randn(2, 6, 8)
    after = torch.randint(1, 5, (2, 6))
    out = layer(x, Call(Places.run(0, 6)), choices=Left(after))
    assert torch.equal(out.choices.after, after)
    hidden, call = x, Call(Places.run(0, 6))
    for i, block in enumerate(layer.blocks):
        hidden = torch.where((after > i)[..., None], block(hidden, call).y, hidden)
    torch.testing.assert_close(out.y, hidden)
    mask = torch.arange(6).expand(2, 6) >= torch.tensor([[0], [2]])
    assert model(tokens, mask=mask).records["leaves"][0][1].tolist()[:2] == [0, 0]


def test_nobody_leaves_without_a_threshold_nor_in_training() -> None:
    tokens = torch.randint(7, (2, 10))
    assert (awake(decoder(SoftmaxResponse()).build())(tokens).records["leaves"][0] == 4).all()
    model = awake(decoder(SoftmaxResponse(0.0)).build())
    assert (model(tokens).records["leaves"][0] == 1).all()
    assert (model.train()(tokens).records["leaves"][0] == 4).all()


def test_attention_that_reads_what_was_skipped_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no input for attention"):
        Decoder("calm", 7, 8, exits(SoftmaxResponse(0.9), Attention(2), Attention(2))).build()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rule": SoftmaxResponse(1.5)}, "threshold at 1.5"),
        ({"blocks": ()}, "no exit before its end"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Decoder("calm", 7, 8, (Exits(stack(Block(LAYERS), times=2), SoftmaxResponse()).replace(**fields),)).build()


def test_nothing_comes_behind_or_around_it() -> None:
    depth, block = Exits(stack(Block((Attention(2), MLP(8))), times=2), SoftmaxResponse(0.5)), Block((MLP(8),))
    for blocks in ((depth, block), (depth, depth), (Recomputed((depth,)),)):
        with pytest.raises(ConfigError, match="nothing comes behind or around it"):
            Decoder("exits", 7, 8, blocks).build()
