"""Recomputed blocks are the same blocks: outputs, gradients, states; and training keeps their inputs alone."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from formers import (
    LSH,
    MLP,
    Attention,
    Block,
    BlockFF,
    ConfigError,
    CrossAttention,
    Decoder,
    Encoder,
    EncoderDecoder,
    Parallel,
    PostNorm,
    PreNorm,
    Recomputed,
    Reversible,
    Rotary,
    Routing,
    SelfLast,
    SharedQK,
    SinkhornAttention,
    SparseFF,
    SwitchFF,
    TopBlocks,
    stack,
)
from formers.block import StackLayer
from formers.call import Call, Layer
from formers.places import Places
from formers.recomputed import RecomputedLayer
from formers.spec import Site
from formers.state import detach

DIM, LENGTH, SITE = 16, 23, Site(dim=16, causal=True)
ALIKE = Attention(2, projection=SharedQK(), position=SelfLast(), scale=1.0)
LAYERS: dict[str, Layer] = {
    "attention": Attention(2, position=Rotary(), dropout=0.3),
    "hashing": ALIKE.replace(select=LSH(4, 2, (2, 4))),
    "routing": ALIKE.replace(select=Routing(4, 5)),
    "top blocks": Attention(2, select=TopBlocks(4, 2)),
    "sinkhorn": SinkhornAttention(2, block=4, iterations=2),
    "sparse feed-forward": SparseFF(24, 4, 4),
    "sparse feed-forward in chunks": SparseFF(24, 4, 4, chunk=7),
    "block feed-forward": BlockFF(24, 4),
    "switch feed-forward": SwitchFF(24, 4),
    "chunks": MLP(24, chunk=7, dropout=0.2),
    "some heads at a time": Attention(2, heads_at_once=1),
    "side by side": Parallel((Attention(2), MLP(24))),
}


def blocks_of(layer: Layer, dropout: float = 0.4, depth: int = 3) -> tuple[Layer, ...]:
    return stack(Block((layer, MLP(24, "gelu_sigmoid")), PreNorm(dropout=dropout)), times=depth)


def built(layer: Layer, dropout: float = 0.4, depth: int = 3) -> tuple[RecomputedLayer, nn.Module]:
    """The same blocks, recomputed and by themselves, in double precision and in training."""
    blocks = blocks_of(layer, dropout, depth)
    torch.manual_seed(0)
    ours = Recomputed(blocks).build(SITE).double().train()
    plain = StackLayer(blocks, SITE).double().train()
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def gradients(layer: nn.Module, x: Tensor, seed: int) -> tuple[Any, list[Tensor]]:
    """A training pass and its gradients, of x, of the parameters, all losses counted in; the generator moves on."""
    torch.manual_seed(seed)
    x = x.clone().requires_grad_()
    out = layer(x, Call(Places.run(0, x.shape[1]), seed=seed, remember=False))
    torch.manual_seed(99)  # the way back must not depend on where the generator stands by then
    told = (out.y * torch.linspace(-1, 1, out.y.numel(), dtype=x.dtype).view_as(out.y)).sum() + sum(out.losses.values())
    return out, list(torch.autograd.grad(told, [x, *layer.parameters()], allow_unused=True))


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_of_plain_autograd(name: str) -> None:
    """With dropout, parts and choices, bit for bit; and other dropout gives others."""
    ours, plain = built(LAYERS[name])
    x = torch.randn(2, LENGTH, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (out, found), (wanted, theirs) = gradients(ours, x, 3), gradients(plain, x, 3)
    assert torch.equal(out.y, wanted.y)
    for one, other in zip(found, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)
    assert not torch.equal(gradients(ours, x, 4)[1][0], found[0])


class Counter(saved_tensors_hooks):
    """The bytes that autograd keeps, each storage once, but for parameters."""

    def __init__(self, module: nn.Module) -> None:
        self.own = {p.untyped_storage().data_ptr() for p in module.parameters()}
        self.sizes: dict[int, int] = {}
        self.held: list[Tensor] = []  # so that no storage is given to another tensor while we count
        super().__init__(self.note, lambda tensor: tensor)

    def note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.own:
            self.sizes[storage.data_ptr()] = storage.nbytes()
            self.held.append(tensor)
        return tensor


def kept(layer: nn.Module, length: int) -> int:
    x = torch.randn(1, length, DIM, requires_grad=True, dtype=torch.float64)
    counter = Counter(layer)
    with counter:
        layer(x, Call(Places.run(0, length), remember=False))
    return sum(counter.sizes.values())


@pytest.mark.parametrize("length", [8, 40])
def test_training_keeps_one_stream_a_block_and_nothing_else(length: int) -> None:
    layer = Attention(2, dropout=0.1)
    for depth in (1, 4, 9):
        ours, plain = built(layer, depth=depth)
        assert kept(ours, length) == depth * length * DIM * 8
        assert kept(plain, length) > 10 * depth * length * DIM * 8


def test_a_recomputed_in_another_keeps_one_stream_for_all_its_blocks() -> None:
    blocks = blocks_of(Attention(2), depth=6)
    flat, _ = built(Attention(2), depth=6)
    nested = Recomputed((Recomputed(blocks[:3]), Recomputed(blocks[3:]))).build(SITE).double().train()
    nested.load_state_dict(dict(zip(nested.state_dict(), flat.state_dict().values(), strict=True)))
    assert kept(nested, 8) == 2 * 8 * DIM * 8
    x = torch.randn(2, LENGTH, DIM, dtype=torch.float64)
    torch.testing.assert_close(gradients(nested, x, 3)[1], gradients(flat, x, 3)[1])


def test_choices_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second pass is given those of the first, even where it would choose otherwise by then."""
    ours, _ = built(SwitchFF(24, 4), dropout=0.0, depth=1)
    given, kind = [], type(ours.blocks[0].sublayers[0])
    run = kind.forward

    def noted(self: nn.Module, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Any:
        given.append(choices)
        return run(self, x, call, state, choices)

    monkeypatch.setattr(kind, "forward", noted)
    x = torch.randn(1, LENGTH, DIM, dtype=torch.float64)
    out, _ = gradients(ours, x, 3)
    assert len(given) == 2 and given[0] is None
    assert torch.equal(given[1], out.choices[0][0])


def test_gradients_reach_states_encoders_and_what_is_done_with_records() -> None:
    blocks = stack(Block((Attention(2), CrossAttention(2), MLP(24))), times=2)
    source = Encoder("source", 20, DIM, (Block((Attention(2),)),))
    plain = EncoderDecoder("pair", source, Decoder("target", 20, DIM, blocks))
    ours = plain.replace(target=plain.target.replace(blocks=(Recomputed(blocks),)))
    torch.manual_seed(0)
    models = ours.build().double(), plain.build().double()
    models[1].load_state_dict(
        {key.replace("blocks.0.blocks.", "blocks."): v for key, v in models[0].state_dict().items()}
    )
    texts, target = torch.randint(20, (2, 9)), torch.randint(20, (2, 12))
    found = []
    for model in models:
        state = model.start(texts)
        first = model.step(target[:, :5], state, logits_at=slice(None))
        second = model.step(target[:, 5:], first.state, logits_at=slice(None))
        told = second.logits.square().sum()
        found.append((second.logits, torch.autograd.grad(told, list(model.source.parameters()), allow_unused=True)))
        again = model.step(target[:, 5:], detach(first.state), logits_at=slice(None)).logits
        torch.testing.assert_close(again, second.logits)
    assert any(g is not None and g.any() for g in found[0][1])
    torch.testing.assert_close(found[0], found[1])


def test_blocks_that_cannot_be_recomputed_are_refused() -> None:
    def spec(*blocks: Layer) -> Decoder:
        return Decoder("mine", 20, DIM, (Recomputed(blocks),))

    block = Block((Attention(2), MLP(24)))
    for blocks, what in (
        ((), "nothing to recompute"),
        ((Reversible((block,), "mean"),), "a Reversible holds a Reversible"),
        ((Block((Attention(2),), PostNorm()), Reversible((block,))), "keeps nothing that could be recomputed"),
    ):
        with pytest.raises(ConfigError, match=what):
            spec(*blocks).build()
    with pytest.raises(ConfigError, match="cannot be inverted"):
        Decoder("mine", 20, DIM, (Reversible((Recomputed((block,)),), "mean"),)).build()
