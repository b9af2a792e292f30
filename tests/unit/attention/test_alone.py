"""A token that meets only itself, in single precision: what a charge of -100,000 leaves of a score must not matter."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from formers.attention.sorted.lane import Meeting
from formers.attention.sorted.op import attend_sorted
from formers.attention.sorted.plan import Rules, sort_by

RULES = [Rules(4, once=False), Rules(4, wrap=True, once=False), Rules(4, 2, 1, wrap=True, once=False), Rules(4)]


def attended(rules: Rules, rounds: int, real: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Outputs, log-sum-exps, and the gradients of queries that are keys and of values."""
    torch.manual_seed(rounds)
    q, v, upstream = (torch.randn(2, 3, 17, 8, dtype=torch.float64).to(dtype) for _ in range(3))
    q, v = q.requires_grad_(), v.requires_grad_()
    plan = sort_by(torch.randint(6, (2, 3, rounds, 17)), rules)
    at, meeting = torch.arange(17)[None], Meeting(rules, True, -1e5, 1.0)
    out, lse = attend_sorted(q, F.normalize(q, dim=-1), v, plan, at, real, meeting)
    grads = torch.autograd.grad(out, (q, v), upstream)
    return tuple(t.detach().double() for t in (out, lse, *grads))


@pytest.mark.parametrize("kernels", ["native", "python"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("rounds", [1, 3, 4])
@pytest.mark.parametrize("rules", RULES, ids=str)
def test_single_precision_is_near_double(
    rules: Rules, rounds: int, padded: bool, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernels == "python":
        monkeypatch.setattr("formers.native.refuses", lambda *_: "a test of the others")
    real = torch.arange(17) >= torch.tensor([[0], [3]]) if padded else None
    out, lse, *grads = attended(rules, rounds, real, torch.float32)
    exact_out, _, *exact_grads = attended(rules, rounds, real, torch.float64)
    torch.testing.assert_close((out, *grads), (exact_out, *exact_grads), atol=1e-5, rtol=1e-5)
    assert (lse[0, :, 0] < -9e4).all()  # token 0 meets nobody else, ever
    assert (lse[1, :, 0].isneginf() == padded).all()
