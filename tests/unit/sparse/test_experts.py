"""Experts chosen one for each token are their formula over all units."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers import ConfigError, Decoder
from formers.block import Block
from formers.call import Call
from formers.places import Places
from formers.sparse import BlockFF, SwitchFF
from formers.sparse.choosing import Coin
from formers.spec import Site

DIM, HIDDEN, EXPERTS = 10, 24, 6
CALL = Call(Places.run(0, 7))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def build(kind: Any, **fields: Any) -> nn.Module:
    layer = kind(HIDDEN, EXPERTS, **fields).build(Site(DIM, path=(3, 1))).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def some(batch: int = 2) -> Tensor:
    return torch.randn(batch, 7, DIM, dtype=torch.float64, requires_grad=True)


def formula(layer: nn.Module, x: Tensor, picked: Tensor, kind: str) -> Tensor:
    """All of it written out; kind: "hard", "soft", "evaluation" or "switch"."""
    p = layer.controller(x).softmax(-1)
    q = F.one_hot(picked.long().squeeze(-1), EXPERTS).double()
    mask = {"hard": q + p - p.detach(), "soft": p, "evaluation": q, "switch": q * p}[kind]
    return layer.down(F.relu(layer.up(x).unflatten(-1, (EXPERTS, -1)) * mask[..., None]).flatten(-2))


def same(found: Tensor, expected: Tensor, layer: nn.Module, x: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    weights = torch.randn_like(found)
    one, other = (
        torch.autograd.grad((y * weights).sum(), [x, *layer.parameters()], allow_unused=True, retain_graph=True)
        for y in (found, expected)
    )
    assert [g is None for g in one] == [g is None for g in other]
    for g, wanted in zip(one, other, strict=True):
        if g is not None:
            torch.testing.assert_close(g, wanted, atol=1e-12, rtol=1e-12)


def test_block_training_is_hard_or_soft_by_a_coin() -> None:
    layer, x = build(BlockFF), some()
    kinds = []
    for seed in range(8):
        call = Call(CALL.at, seed=seed)
        kinds.append("hard" if Coin(call, (3, 1, 0)).falls(0.5) else "soft")
        out = layer(x, call)
        same(out.y, formula(layer, x, out.choices, kinds[-1]), layer, x)
    assert set(kinds) == {"hard", "soft"}


def test_block_evaluation_is_the_masked_formula() -> None:
    layer, x = build(BlockFF).eval(), some()
    out = layer(x, CALL)
    assert torch.equal(out.choices.squeeze(-1), layer.controller(x).argmax(-1).to(torch.uint8))
    same(out.y, formula(layer, x, out.choices, "evaluation"), layer, x)


@pytest.mark.parametrize("training", [True, False])
def test_a_switch_weighs_its_expert(training: bool) -> None:
    layer, x = build(SwitchFF).train(training), some()
    out = layer(x, CALL)
    same(out.y, formula(layer, x, out.choices, "switch"), layer, x)
    out.y.square().sum().backward()
    assert layer.controller.weight.grad.any()


@pytest.mark.parametrize("kind", [BlockFF, SwitchFF])
def test_experts_that_nobody_chose_are_not_computed(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x, ran = build(kind).eval(), some(), []
    expert = type(layer)._expert
    monkeypatch.setattr(type(layer), "_expert", lambda self, *given: ran.append(given) or expert(self, *given))
    given = torch.tensor([2, 5, 2, 2, 5, 2, 5], dtype=torch.uint8)[None, :, None].expand(2, -1, -1)
    out = layer(x, CALL, choices=given)
    assert [len(mine) for mine, *_ in ran] == [8, 6] and torch.equal(out.choices, given)
    torch.testing.assert_close(out.y, formula(layer, x, given, "evaluation" if kind is BlockFF else "switch"))


@pytest.mark.parametrize("kind", [BlockFF, SwitchFF])
def test_chunks_are_the_whole(kind: Any) -> None:
    whole, cut, x = build(kind).eval(), build(kind, chunk=3).eval(), some()
    cut.load_state_dict(whole.state_dict())
    out = cut(x, CALL)
    torch.testing.assert_close(out.y, whole(x, CALL).y)
    assert [chosen.shape for chosen in out.choices] == [(2, 3, 1), (2, 3, 1), (2, 1, 1)]


def test_experts_are_drawn_from_the_softmax() -> None:
    layer = build(SwitchFF, temperature=1.0)
    x = some(1)[:, :1].detach().expand(4000, 7, -1)
    drawn = layer(x, CALL).choices.flatten()
    expected = layer.controller(x[0, 0]).softmax(-1)
    torch.testing.assert_close(
        torch.bincount(drawn, minlength=EXPERTS) / len(drawn), expected.float(), atol=0.01, rtol=0
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden": 25}, r"25 hidden units cannot be cut into 6 experts.*fix: hidden=24"),
        ({"experts": 1}, r"among 1 experts there is nothing to choose.*fix: experts=8"),
        ({"temperature": -1.0}, r"a temperature is at least 0, got -1.0"),
        ({"dropout": -0.5}, r"a dropout rate is at least 0"),
        ({"chunk": 0}, r"chunks of 0 tokens"),
    ],
)
@pytest.mark.parametrize("kind", [BlockFF, SwitchFF])
def test_what_cannot_be_is_refused(kind: Any, fields: dict[str, Any], message: str) -> None:
    spec = kind(**{"hidden": HIDDEN, "experts": EXPERTS} | fields)
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        Decoder("model", 11, DIM, (Block((spec,)),)).build()
