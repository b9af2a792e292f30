"""Keys of length 1: their values, and gradients by queries, by keys and by both, however small the pieces are."""

import pytest
import torch
from torch import Tensor

from formers.attention import own_keys as module
from formers.attention.own_keys import EPS, own_keys


def plainly(q: Tensor) -> Tensor:
    return q / (q.square().sum(-1, keepdim=True) + q.shape[-1] * EPS).sqrt()


def heads(length: int, kind: torch.dtype = torch.float64) -> Tensor:
    """(2, 3, T, 4), the heads of a token side by side, as projections give them."""
    made = torch.randn(2, length, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return made.to(kind).transpose(1, 2).requires_grad_()


@pytest.mark.parametrize("piece", [1, 24, 50, 1 << 18])
@pytest.mark.parametrize("used", ["queries", "keys", "both"])
def test_values_and_gradients(piece: int, used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE", piece)
    q, slopes = heads(7), torch.randn(2, 2, 3, 7, 4, dtype=torch.float64)
    found: list[tuple[Tensor, ...]] = []
    for both in (own_keys(q), (q, plainly(q))):
        total = sum(
            (t * s).sum()
            for t, s, name in zip(both, slopes, ("queries", "keys"), strict=True)
            if used in (name, "both")
        )
        found.append((*both, *torch.autograd.grad(total, q)))
    torch.testing.assert_close(*found)
    assert own_keys(q)[1].stride() == q.stride()


def test_half_precision_keeps_its_type_and_sums_in_fp32() -> None:
    q = heads(5, torch.bfloat16)
    _, k = own_keys(q)
    assert k.dtype == torch.bfloat16
    torch.testing.assert_close(k, plainly(q.float()).bfloat16(), atol=4e-3, rtol=1e-2)
    (slope,) = torch.autograd.grad(k.sum(), q)
    assert slope.dtype == torch.bfloat16


def test_a_vector_of_zeros_has_a_key_of_zeros_and_a_gradient() -> None:
    q = torch.zeros(1, 1, 2, 4, requires_grad=True)
    _, k = own_keys(q)
    k.sum().backward()
    assert not k.any()
    assert q.grad is not None and q.grad.isfinite().all()
