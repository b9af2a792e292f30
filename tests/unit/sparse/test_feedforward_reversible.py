"""Sparse feed-forwards in stacks that compute everything a second time: reversible, in chunks, under dropout, at once."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from formers import MLP, Attention, Block, LayerNorm, PreNorm
from formers.call import Call, Layer, Out
from formers.places import Places
from formers.reversible import Reversible
from formers.sparse import BlockFF, SparseFF, SwitchFF
from formers.sparse.choosing import Coin
from formers.spec import Site

DIM, LENGTH = 8, 13
SPARSE = SparseFF(24, 6, 4, temperature=1.0, hard=0.5, dropout=0.3, chunk=5)
KINDS = {
    "sparse": SPARSE,
    "whole": SPARSE.replace(chunk=None),
    "mask after": SPARSE.replace(mask="after"),
    "weighted": SPARSE.replace(weighted=True),
    "blocks": BlockFF(24, 6, dropout=0.3, chunk=5),
    "switch": SwitchFF(24, 6, temperature=1.0, dropout=0.3, chunk=5),
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def build(sparse: Layer) -> nn.Module:
    block = Block((Attention(2, dropout=0.2), sparse, MLP(12, chunk=4)), PreNorm(LayerNorm(), 0.2))
    layer = Reversible((block,) * 3).build(Site(DIM, causal=True)).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def plain(layer: nn.Module, x: Tensor, call: Call) -> Out:
    """The same by ordinary autograd, which keeps everything. Draws in the same order."""
    x1, x2 = x, x
    choices: list[Any] = []
    for block in layer.blocks:
        rate = block.residual.rate
        for norm, sublayer in zip(block.residual.norms, block.sublayers, strict=True):
            keep = torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - rate)
            out = sublayer(norm(x2), call)
            choices.append(out.choices)
            x1, x2 = x2, x1 + out.y * keep / (1 - rate)
    return Out(torch.cat([x1, x2], -1), choices=choices)


def gradients(y: Tensor, layer: nn.Module, x: Tensor) -> list[Tensor | None]:
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return list(torch.autograd.grad((y * weights).sum(), [x, *layer.parameters()], allow_unused=True))


def same(found: list[Tensor | None], expected: list[Tensor | None]) -> None:
    assert all((one is None) == (other is None) for one, other in zip(found, expected, strict=True))
    for one, other in zip(found, expected, strict=True):
        if one is not None:
            torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", list(KINDS))
def test_reversible_gradients_are_those_of_plain_autograd(kind: str) -> None:
    """With dropout, chunks, coins that fall both ways, and draws, in three blocks."""
    layer, x = build(KINDS[kind]), torch.randn(2, LENGTH, DIM, dtype=torch.float64, requires_grad=True)
    call, chance = Call(Places.run(0, LENGTH), seed=3), torch.get_rng_state()
    paths = [(block, 1, chunk) for block in range(3) for chunk in range(3)]
    assert len({Coin(call, path).falls(0.5) for path in paths}) == 2
    out = layer(x, call)
    torch.manual_seed(99)  # whatever is drawn between the two passes
    found = gradients(out.y, layer, x)
    torch.set_rng_state(chance)
    expected = plain(layer, x, call)
    torch.testing.assert_close(out.y, expected.y, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close([block[1] for block in out.choices], expected.choices[1::3], rtol=0, atol=0)
    same(found, gradients(expected.y, layer, x))


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_way_back_obeys_the_choices_of_the_way_there(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams that are rebuilt are not quite those of the first pass: whoever chose again would choose otherwise."""
    layer, x = build(KINDS[kind]), torch.randn(2, LENGTH, DIM, dtype=torch.float64, requires_grad=True)
    y, made = layer(x, Call(Places.run(0, LENGTH), seed=3)).y, []
    for module in ("feedforward", "experts"):
        monkeypatch.setattr(f"formers.sparse.{module}.sample", lambda *given: made.append(given))
    y.sum().backward()
    assert not made


@pytest.mark.parametrize("kind", list(KINDS))
def test_inside_a_checkpoint(kind: str) -> None:
    layer, x = build(KINDS[kind]), torch.randn(2, LENGTH, DIM, dtype=torch.float64, requires_grad=True)
    call, chance = Call(Places.run(0, LENGTH), seed=5), torch.get_rng_state()
    found = gradients(checkpoint(layer, x, call, use_reentrant=False).y, layer, x)
    torch.set_rng_state(chance)
    same(found, gradients(plain(layer, x, call).y, layer, x))


def test_choices_of_a_training_pass_serve_another_of_the_same_seed() -> None:
    layer, x = build(SPARSE), torch.randn(2, LENGTH, DIM, dtype=torch.float64)
    call, chance = Call(Places.run(0, LENGTH), seed=4), torch.get_rng_state()
    first = layer(x, call)
    torch.set_rng_state(chance)
    again = layer(x + 1e-12, call, choices=first.choices)
    torch.testing.assert_close(again.choices, first.choices, rtol=0, atol=0)
    torch.testing.assert_close(again.y, first.y)
