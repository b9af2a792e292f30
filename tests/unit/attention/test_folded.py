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
