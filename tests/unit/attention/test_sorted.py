"""Attention over sorted chunks equals the dense oracle on the pairs of its plan, forwards and backwards."""

import itertools

import pytest
import torch
from torch import Tensor

from formers.attention.oracle import attend_dense
from formers.attention.sorted.lane import Meeting
from formers.attention.sorted.op import attend_sorted
from formers.attention.sorted.plan import Rules, SortedPlan, sort_by

RULES = [
    Rules(4),
    Rules(4, 1, 1),
    Rules(5, 0, 1, reach=3),
    Rules(3, 2, 0, same=True),
    Rules(4, 1, 0, reach=4, same=True),
    Rules(4, 1, 0, once=False),
    Rules(4, 1, 0, wrap=True, once=False),
    Rules(4, 1, 1, wrap=True, once=False),
]


def setting(length: int, rounds: int, rules: Rules, padded: bool) -> tuple[list[Tensor], SortedPlan, Tensor | None]:
    """q, k (2, 2, S, 6), v (2, 2, S, 5), a plan of three buckets a round, and which tokens are real."""
    torch.manual_seed(length * 10 + rounds)
    qkv = [torch.randn(2, 2, length, width, dtype=torch.float64, requires_grad=True) for width in (6, 6, 5)]
    plan = sort_by(torch.randint(3, (2, 2, rounds, length)), rules)
    return qkv, plan, torch.rand(2, length) < 0.8 if padded else None


def times_met(plan: SortedPlan, length: int) -> Tensor:
    """How often the plan's tiles bring each pair together: (2, 2, S, S)."""
    count = torch.zeros(2, 2, length + 1, length + 1)  # the last row and column take the pairs that are nothing
    for tiles in plan.tiles().groups:
        rows, columns = (torch.where(index < 0, length, index) for index in (tiles.q_index, tiles.k_index))
        for b, h, n in itertools.product(range(2), range(2), range(rows.shape[2])):
            met = torch.ones(rows.shape[3], columns.shape[3]) if tiles.meet is None else tiles.meet[b, h, n].float()
            spots = rows[b, h, n][:, None].expand_as(met), columns[b, h, n].expand_as(met)
            count[b, h].index_put_(spots, met, accumulate=True)
    return count[..., :length, :length]


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "two-sided"])
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize(("length", "rounds"), [(1, 1), (3, 2), (8, 3), (13, 1), (13, 3)])
def test_equals_the_dense_oracle(length: int, rounds: int, rules: Rules, padded: bool, causal: bool) -> None:
    (q, k, v), plan, real = setting(length, rounds, rules, padded)
    count = times_met(plan, length)
    assert not rules.once or count.max() <= 1
    visible = count > 0
    if causal:
        visible = visible & torch.ones(length, length).tril().bool()
    if real is not None:
        visible = visible & real[:, None, None]
    bias = -3.0 * torch.eye(length) + count.double().clamp(min=1).log()
    expected = attend_dense(q, k, v, visible, scale=0.7, bias=bias)
    out, lse = attend_sorted(q, k, v, plan, torch.arange(length)[None], real, Meeting(rules, causal, -3.0, 0.7))
    torch.testing.assert_close(out, expected)
    scores = (q @ k.mT * 0.7 + bias).masked_fill(~visible, float("-inf"))
    torch.testing.assert_close(lse, scores.logsumexp(-1).detach())
    upstream = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(out, (q, k, v), upstream), torch.autograd.grad(expected, (q, k, v), upstream)
    )


def test_pieces_of_any_size_come_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    (q, k, v), plan, real = setting(40, 2, Rules(3, 1, 1), padded=True)
    at, meeting = torch.arange(40)[None], Meeting(plan.rules, True, -1e5, 1.0)
    whole = attend_sorted(q, k, v, plan, at, real, meeting)[0]
    monkeypatch.setattr("formers.attention.sorted.lane.PIECE", {"cpu": 1})
    cut = attend_sorted(q, k, v, plan, at, real, meeting)[0]
    torch.testing.assert_close(cut, whole)
    upstream = torch.randn_like(cut)
    torch.testing.assert_close(
        torch.autograd.grad(cut, (q, k, v), upstream), torch.autograd.grad(whole, (q, k, v), upstream)
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_is_an_operator_that_torch_knows_all_about(rate: float, dtype: torch.dtype) -> None:
    given, plan, real = setting(9, 2, Rules(4), padded=True)
    qkv = [t.detach().to(dtype).requires_grad_() for t in given]
    tensors = plan.order, plan.slot, plan.bucket, torch.arange(9)[None], real, torch.tensor(7) if rate else None
    rest = (*tensors, [4, 1, 0, 0, 0, 0, 1], True, -1e5, 1.0, rate)
    torch.library.opcheck(torch.ops.formers.sorted_attention.default, (*qkv, *rest))
    rows = [t.detach() for t in qkv]
    out, lse = torch.ops.formers.sorted_attention(*rows, *rest)
    grad = torch.ones_like(out)
    torch.library.opcheck(torch.ops.formers.sorted_attention_backward.default, (grad, out, lse, *rows, *rest))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_memory_may_be_laid_out_in_any_way(dtype: torch.dtype) -> None:
    """Heads inside tokens, as projections give them, or the width not even side by side."""
    plan, at = sort_by(torch.randint(3, (2, 2, 2, 13)), Rules(4)), torch.arange(13)[None]
    meeting = Meeting(plan.rules, True, -1e5, 1.0)
    plain = [torch.randn(2, 2, 13, 8, dtype=dtype, requires_grad=True) for _ in range(3)]
    expected = attend_sorted(*plain, plan, at, None, meeting)[0]
    upstream = torch.randn(2, 2, 13, 8, dtype=dtype)
    slopes = torch.autograd.grad(expected, plain, upstream)
    for axes in ((0, 2, 1, 3), (0, 1, 3, 2)):
        laid = [t.detach().permute(axes).contiguous().permute(axes).requires_grad_() for t in plain]
        out = attend_sorted(*laid, plan, at, None, meeting)[0]
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(torch.autograd.grad(out, laid, upstream), slopes)


def test_a_token_that_meets_no_other_falls_back_on_itself() -> None:
    """With one token in each bucket and no neighbours, the charge on itself is all there is."""
    (q, k, v), _, _ = setting(4, 1, Rules(1), padded=False)
    plan = sort_by(torch.arange(4).expand(2, 2, 1, 4), Rules(1, 0))
    out, _ = attend_sorted(q, k, v, plan, torch.arange(4)[None], None, Meeting(plan.rules, True, -1e5, 1.0))
    torch.testing.assert_close(out, v)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_knows_every_position(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 1, 2000, 8).to(dtype) for _ in range(3))
    plan = sort_by(torch.randint(40, (1, 1, 2, 2000)), Rules(16))
    at, meeting = torch.arange(2000)[None], Meeting(plan.rules, True, -1e5, 0.5)
    out, _ = attend_sorted(q, k, v, plan, at, None, meeting)
    expected, _ = attend_sorted(q.double(), k.double(), v.double(), plan, at, None, meeting)
    assert out.dtype == dtype
    torch.testing.assert_close(out, expected.to(dtype))
