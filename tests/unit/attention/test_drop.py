"""Dropout in the executor of sorted chunks: dense attention with the same weights dropped, natively and in PyTorch."""

from typing import Any

import pytest
import torch
from torch import Tensor

from formers import LSH, MLP, Attention, Block, Causal, Reversible, SelfLast, SharedQK, Window, native, stack
from formers.attention.sorted.drop import Drop
from formers.attention.sorted.lane import Meeting
from formers.attention.sorted.op import attend_sorted
from formers.attention.sorted.plan import Rules, SortedPlan, sort_by
from formers.call import Call
from formers.places import Places
from formers.spec import Site

B, H, S, D = 2, 2, 29, 8
RULES = [Rules(4, 1, 1), Rules(5, 2, same=True), Rules(4, once=False), Rules(4, wrap=True, once=False)]
LSH_ALIKE: dict[str, Any] = {"projection": SharedQK(), "position": SelfLast(), "scale": 1.0}
LAYERS = {
    "hashed": Attention(2, dropout=0.3, select=LSH(4, 2, plain_below=0), **LSH_ALIKE),
    "local": Attention(2, dropout=0.3, pattern=Causal() & Window(8)),
}


def drop(rate: float, seed: int = 11) -> Drop:
    return Drop(rate, torch.tensor(seed))


def kept(of: Drop, batch: int = B, heads: int = H, length: int = S) -> Tensor:
    """0 or 1 / (1 - rate) for every pair (B, H, S, S)."""
    words = of.words(batch, heads, length, torch.device("cpu"))
    return of.apply(torch.ones(batch, heads, length, length, dtype=torch.float64), words[..., None], words[:, :, None])


def setting(rules: Rules, dtype: torch.dtype) -> tuple[list[Tensor], SortedPlan, Tensor]:
    torch.manual_seed(0)
    qkv = [torch.randn(B, H, S, D, dtype=dtype, requires_grad=True) for _ in range(3)]
    return qkv, sort_by(torch.randint(4, (B, H, 2, S)), rules), torch.rand(B, S) < 0.8


def run(dtype: torch.dtype, rules: Rules, bias: float, of: Drop | None) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Output, log-sum-exps and gradients of the same numbers in that precision."""
    qkv, plan, real = setting(rules, torch.float64)
    qkv = [t.detach().to(dtype).requires_grad_() for t in qkv]
    out, lse = attend_sorted(*qkv, plan, torch.arange(S)[None], real, Meeting(rules, True, bias, 0.7, of))
    upstream = torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)
    return out, lse, torch.autograd.grad(out, qkv, upstream)


def met(plan: SortedPlan) -> Tensor:
    """How often pairs meet (B, H, S, S), told by values that name their tokens: no dropout, no charge, no scores."""
    flat = torch.zeros(B, H, S, D, dtype=torch.float64)
    eye = torch.eye(S, dtype=torch.float64).expand(B, H, S, S)
    out, lse = attend_sorted(flat, flat, eye, plan, torch.arange(S)[None], None, Meeting(plan.rules, True, 0.0, 1.0))
    return out * lse.exp()[..., None].nan_to_num()


@pytest.mark.parametrize("bias", [0.0, -1e5])
@pytest.mark.parametrize("rules", RULES, ids=str)
def test_is_dense_attention_with_weights_dropped(rules: Rules, bias: float) -> None:
    (q, k, v), plan, real = setting(rules, torch.float64)
    times = (met(plan) * real[:, None, None]).round()
    scores = (q @ k.mT * 0.7 + bias * torch.eye(S) + times.log()).masked_fill(times == 0, -torch.inf)
    nothing = (times == 0).all(-1, keepdim=True)
    weights = scores.masked_fill(nothing, 0).softmax(-1).masked_fill(nothing, 0)
    dropping = drop(0.3)
    expected = (weights * kept(dropping)) @ v
    out, _, slopes = run(torch.float64, rules, bias, dropping)
    seen = real[:, None, :, None] | ~nothing
    torch.testing.assert_close(out * seen, expected * seen)
    upstream = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)
    torch.testing.assert_close(slopes, torch.autograd.grad(expected, (q, k, v), upstream))


@pytest.mark.parametrize("rate", [0.3, 0.9, 1.0])
@pytest.mark.parametrize("bias", [0.0, -1e5])
@pytest.mark.parametrize("rules", RULES, ids=str)
def test_native_and_pytorch_drop_the_same(rules: Rules, bias: float, rate: float) -> None:
    if native.missing():
        pytest.skip(str(native.missing()))
    ours, _, slopes = run(torch.float32, rules, bias, drop(rate))
    expected, _, expected_slopes = run(torch.float64, rules, bias, drop(rate))
    torch.testing.assert_close(ours, expected.float(), atol=1e-5, rtol=1e-5)
    for one, other in zip(slopes, expected_slopes, strict=True):
        torch.testing.assert_close(one, other.float(), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_log_sum_exp_knows_nothing_of_it(dtype: torch.dtype) -> None:
    torch.testing.assert_close(run(dtype, RULES[0], 0.0, drop(0.5))[1], run(dtype, RULES[0], 0.0, None)[1])


def test_keeps_its_share_of_every_row_column_and_head_and_other_weights_with_another_seed() -> None:
    share = (kept(drop(0.3), 2, 3, 512) > 0).double()
    assert (share.mean((-1, -2)) - 0.7).abs().max() < 0.005
    assert max((share.mean(axis) - 0.7).abs().max() for axis in (-1, -2)) < 0.1  # five standard deviations
    flat = torch.cat([share.flatten(0, 1), share[0, :1].mT, (kept(drop(0.3, 12), 1, 1, 512) > 0).double()[0]])
    alike = torch.corrcoef(flat.flatten(1)).fill_diagonal_(0)
    assert alike.abs().max() < 0.012  # heads, a head turned round, and another seed: six standard deviations
    four = share[:, :, :-1, :-1] + share[:, :, 1:, 1:] - share[:, :, 1:, :-1] - share[:, :, :-1, 1:]
    torch.testing.assert_close(four.var(), torch.tensor(4 * 0.3 * 0.7, dtype=torch.float64), rtol=0.02, atol=0)


@pytest.mark.parametrize("kind", LAYERS)
def test_torchs_generator_says_what_is_dropped_and_only_in_training(kind: str) -> None:
    layer, x = LAYERS[kind].build(Site(16, causal=True)), torch.randn(2, 1200, 16)
    call = Call(Places.run(0, 1200), remember=False)

    def output(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return layer(x, call).y

    torch.testing.assert_close(output(1), output(1), rtol=0, atol=0)
    assert not torch.equal(output(1), output(2))
    layer.eval()
    torch.testing.assert_close(output(1), output(2), rtol=0, atol=0)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_pass_that_is_made_again_drops_the_same(kind: str) -> None:
    """A reversible stack, whose backward pass makes its parts again: the gradient is the slope between two passes."""
    torch.manual_seed(0)
    blocks = stack(Block((LAYERS[kind], MLP(24))), times=2)
    layer = Reversible(blocks).build(Site(16, causal=True)).double()
    x = torch.randn(1, 1100, 16, dtype=torch.float64)
    way = torch.randn(1, 1100, 32, dtype=torch.float64)
    call = Call(Places.run(0, 1100), remember=False)

    def value(x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return (layer(x, call).y * way).sum()

    x.requires_grad_()
    (slope,) = torch.autograd.grad(value(x), x)
    step = 1e-6 * torch.randn_like(x)
    with torch.no_grad():
        found = value(x + step) - value(x - step)
    torch.testing.assert_close((slope * 2 * step).sum(), found, rtol=1e-4, atol=1e-9)
