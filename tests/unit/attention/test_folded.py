"""Folded attention: the same as with keys and values that are made."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.attention.folded import attend_inputs
from formers.attention.project import split_heads
from formers.places import Places

HEADS, DIM, SCALE = 2, 6, 0.4


def made(q: Tensor, x: Tensor, real: Tensor | None, k_proj: nn.Linear, v_proj: nn.Linear) -> Tensor:
    k, v = (split_heads(proj(x), q.shape[-1]) for proj in (k_proj, v_proj))
    mask = None if real is None else real[:, None, None].expand(-1, -1, q.shape[2], -1)
    return F.scaled_dot_product_attention(q, k, v, mask, scale=SCALE)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_outputs_and_gradients_equal_those_of_made_keys_and_values(bias: bool, padded: bool) -> None:
    drawn = torch.Generator().manual_seed(0)
    q, x = (torch.randn(shape, generator=drawn, dtype=torch.float64) for shape in ((2, HEADS, 3, 4), (2, 7, DIM)))
    k_proj, v_proj = (nn.Linear(DIM, HEADS * 4, bias=bias, dtype=torch.float64) for _ in range(2))
    real = torch.tensor([[True] * 7, [False, *[True] * 4, False, False]]) if padded else None
    inputs = [q.requires_grad_(), x.requires_grad_(), *k_proj.parameters(), *v_proj.parameters()]
    at = Places(torch.arange(7)[None], real)
    folded = attend_inputs(q, x, at, k_proj, v_proj, SCALE)
    expected = made(q, x, real, k_proj, v_proj)
    torch.testing.assert_close(folded, expected)
    upstream = torch.randn(folded.shape, generator=drawn, dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad(folded, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_dropped_weights_leave_as_much_of_the_bias_as_of_the_values() -> None:
    x, q = torch.ones(1, 400, 2), torch.zeros(1, 1, 1, 2)
    k_proj, v_proj = nn.Linear(2, 2), nn.Linear(2, 2)
    torch.manual_seed(0)
    seen = attend_inputs(q, x, Places.run(0, 400), k_proj, v_proj, 1.0, 0.5)
    ratio = (seen[0, 0, 0] / v_proj(x[0, 0])).detach()
    torch.testing.assert_close(ratio[0], ratio[1])
    assert 0.8 < float(ratio[0]) < 1.2 and float(ratio[0]) != 1


def test_gradients_are_those_of_the_weights_that_were_kept() -> None:
    drawn = torch.Generator().manual_seed(0)
    q, x = (torch.randn(shape, generator=drawn, dtype=torch.float64) for shape in ((2, HEADS, 3, 4), (2, 7, DIM)))
    k_proj, v_proj = (nn.Linear(DIM, HEADS * 4, dtype=torch.float64) for _ in range(2))
    inputs = [q.requires_grad_(), x.requires_grad_(), *k_proj.parameters(), *v_proj.parameters()]
    torch.manual_seed(3)
    folded = attend_inputs(q, x, Places.run(0, 7), k_proj, v_proj, SCALE, 0.4)
    torch.manual_seed(3)
    keep = torch.empty(2, HEADS * 3, 7, dtype=torch.bool).bernoulli_(0.6).view(2, HEADS, 3, 7)
    k, v = (split_heads(proj(x), 4) for proj in (k_proj, v_proj))
    expected = ((SCALE * q @ k.mT).softmax(-1) * keep / 0.6) @ v
    torch.testing.assert_close(folded, expected)
    for ours, theirs in zip(
        torch.autograd.grad(folded.square().sum(), inputs),
        torch.autograd.grad(expected.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_autocast_lowers_its_products_both_ways() -> None:
    drawn = torch.Generator().manual_seed(0)
    q, x = (torch.randn(shape, generator=drawn).requires_grad_() for shape in ((2, HEADS, 3, 4), (2, 7, DIM)))
    k_proj, v_proj = (nn.Linear(DIM, HEADS * 4) for _ in range(2))
    at, inputs = Places.run(0, 7), [q, x, *k_proj.parameters(), *v_proj.parameters()]
    exact = attend_inputs(q, x, at, k_proj, v_proj, SCALE)
    with torch.autocast("cpu", torch.bfloat16):
        rough = attend_inputs(q, x, at, k_proj, v_proj, SCALE)
    torch.testing.assert_close(rough.float(), exact, atol=0.03, rtol=0.03)
    assert not torch.equal(rough.float(), exact)
    for lowered, full in zip(
        torch.autograd.grad(rough.float().square().sum(), inputs),
        torch.autograd.grad(exact.square().sum(), inputs),
        strict=True,
    ):
        assert lowered.dtype == torch.float32
        torch.testing.assert_close(lowered, full, atol=0.1, rtol=0.1)


def test_nothing_of_the_size_of_the_weights_is_stored() -> None:
    q, x = torch.randn(1, HEADS, 3, 4).requires_grad_(), torch.randn(1, 700, DIM).requires_grad_()
    k_proj, v_proj = (nn.Linear(DIM, HEADS * 4) for _ in range(2))
    stored: list[Tensor] = []

    def note(t: Tensor) -> Tensor:
        stored.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        attend_inputs(q, x, Places.run(0, 700), k_proj, v_proj, SCALE)
    assert any(t is x for t in stored)
    assert all(t.numel() < HEADS * 3 * 700 for t in stored if t is not x)
