"""Experts within attention: who makes what, and what is told of it."""

import pytest
import torch
from torch.nn import functional as F

from formers import MLP, Attention, Block, ConfigError, Decoder, Linear, Switch, SwitchAttention
from formers.call import Call
from formers.convert import dense_counterpart
from formers.places import Places
from formers.report.cost import cost
from formers.spec.core import Site

DIM, HEADS, LENGTH = 16, 4, 9


def given(switch: Switch, **fields: object) -> tuple[SwitchAttention, torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    spec = SwitchAttention(HEADS, switch, **fields)
    return spec, spec.build(Site(DIM, causal=True)).double().eval(), torch.randn(2, LENGTH, DIM).double()


def call() -> Call:
    return Call(Places.run(0, LENGTH), remember=False)


def test_each_token_goes_through_its_own_matrices() -> None:
    """A dense reading: every expert on every token, and the chosen one picked out."""
    _, layer, x = given(Switch(Linear(), 3))
    found = layer(x, call())

    def made(part: torch.nn.Module) -> torch.Tensor:
        chances = F.linear(x, part.router.weight).softmax(-1)
        every = torch.einsum("noi,bti->btno", part.experts.linear.weight, x) + part.experts.linear.bias
        best = chances.argmax(-1)[..., None, None].expand(-1, -1, 1, DIM)
        return every.gather(2, best)[:, :, 0] * chances.amax(-1, keepdim=True)

    q, k = (made(part).unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (layer.to_queries, layer.to_keys))
    seen = F.scaled_dot_product_attention(q, k, k, is_causal=True).transpose(1, 2).flatten(2)
    torch.testing.assert_close(found.y, layer.out_proj(seen))


def test_losses_and_records_are_of_both_layers() -> None:
    _, layer, x = given(Switch(Linear(), 3, capacity=0.5))
    out = layer.train()(x, call())
    assert [load.sum() for load in out.records["load"]] == [2 * LENGTH, 2 * LENGTH]
    assert all(dropped > 0 for dropped in out.records["dropped"])
    assert out.losses["load_balance"].item() > 0
    out.losses["load_balance"].backward()
    assert all(part.router.weight.grad.abs().sum() > 0 for part in (layer.to_queries, layer.to_keys))


def test_choices_that_are_handed_back_are_obeyed() -> None:
    _, layer, x = given(Switch(Linear(), 3))
    chosen = layer(x, call()).choices
    others = tuple((choice + 1) % 3 for choice in chosen)
    again = layer(x, call(), None, others)
    assert all(torch.equal(a, b) for a, b in zip(again.choices, others, strict=True))
    assert not torch.equal(again.y, layer(x, call()).y)


def test_its_price_has_experts_in_place_of_three_matrices() -> None:
    """Each kind of experts costs its router's matrix and one expert's."""
    sublayers = (Attention(HEADS), SwitchAttention(HEADS, Switch(Linear(bias=False), 3)))
    plain, ours = (row.price for row in cost(Decoder("two", 5, DIM, (Block(sublayers),)), LENGTH).parts[1:3])
    assert ours.operations == pytest.approx(plain.operations - 2 * DIM * DIM + 2 * 2 * 3 * DIM)
    assert ours.parameters == 2 * (3 * DIM + 3 * DIM * DIM) + DIM * DIM + DIM
    assert ours.weights == 4 * (2 * (3 * DIM + DIM * DIM) + DIM * DIM + DIM)
    assert ours.token == plain.token


def test_what_cannot_be() -> None:
    with pytest.raises(ConfigError, match="does not split into 3 heads"):
        Decoder("odd", 5, DIM, (Block((SwitchAttention(3),)),)).build()


def test_it_is_not_distilled() -> None:
    within = Decoder("within", 5, DIM, (Block((SwitchAttention(HEADS), Switch(MLP(8), 2))),))
    with pytest.raises(ConfigError, match="no dense counterpart"):
        dense_counterpart(within)
