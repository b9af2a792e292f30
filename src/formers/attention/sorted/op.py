"""Attention over sorted chunks as a PyTorch operator, which torch.compile takes as it is and autograd can differentiate.

The native kernels do the work where they can, and else PyTorch; both give the same.
"""

from typing import Any

import torch
from torch import Tensor

from formers import native
from formers.attention.sorted import executor
from formers.attention.sorted.alone import bar_self, fall_back, gradient_alone, own
from formers.attention.sorted.drop import Drop
from formers.attention.sorted.lane import Meeting
from formers.attention.sorted.plan import Rules, SortedPlan
from formers.native import kept


def attend_sorted(
    q: Tensor, k: Tensor, v: Tensor, plan: SortedPlan, pos: Tensor, real: Tensor | None, meeting: Meeting
) -> tuple[Tensor, Tensor]:
    """One softmax for each query over the keys that it meets in any round, which `meeting` narrows down.

    q, k (B, H, S, D), v (B, H, S, E) of the same tokens; pos (1 or B, S), whole numbers; real (B, S) bool, False at
    padding, or None. Gives out (B, H, S, E), and without a gradient the log-sum-exp of the scores (B, H, S). A query that
    meets nothing gets 0 and -inf.
    """
    rules, drop = [int(rule) for rule in meeting.rules], meeting.drop
    seed, rate = (None, 0.0) if drop is None else (drop.seed, drop.rate)
    shares = (meeting.causal, meeting.self_bias, meeting.scale, rate)
    rows = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
    out, lse = _forward(*rows, plan.order, plan.slot, plan.bucket, pos, real, seed, rules, *shares)
    return out, lse


@torch.library.custom_op("formers::sorted_attention", mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    order: Tensor,
    slot: Tensor,
    bucket: Tensor,
    pos: Tensor,
    real: Tensor | None,
    seed: Tensor | None,
    rules: list[int],
    causal: bool,
    self_bias: float,
    scale: float,
    rate: float,
) -> tuple[Tensor, Tensor]:
    meeting = _meeting(rules, causal, self_bias, scale, rate, seed)
    plain, narrow = _plain(meeting), v.dtype
    q, k, v = _wide(q, k, v)
    if native.refuses(q, k, v, plain) is None:
        out, lse = native.forward(q, k, v, order, slot, bucket, pos, real, plain)
        return out.to(narrow), lse
    plan = SortedPlan(order, slot, bucket, meeting.rules)
    out, lse = executor.forward(q, k, v, plan, pos, real, bar_self(meeting))
    fall_back(out, lse, v, real, meeting)
    return out.to(narrow), lse


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(v), q.new_empty(q.shape[:3], dtype=_exact(v.dtype))


@torch.library.custom_op("formers::sorted_attention_backward", mutates_args=())
def _backward(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    order: Tensor,
    slot: Tensor,
    bucket: Tensor,
    pos: Tensor,
    real: Tensor | None,
    seed: Tensor | None,
    rules: list[int],
    causal: bool,
    self_bias: float,
    scale: float,
    rate: float,
) -> tuple[Tensor, Tensor, Tensor]:
    meeting = _meeting(rules, causal, self_bias, scale, rate, seed)
    plain, dtypes = _plain(meeting), (q.dtype, k.dtype, v.dtype)
    q, k, v, grad, out = _wide(q, k, v, grad, out)
    if native.refuses(q, k, v, plain) is None:
        grads = native.backward(grad, out, lse, q, k, v, order, slot, bucket, pos, real, plain)
    else:
        plan = SortedPlan(order, slot, bucket, meeting.rules)
        lse, alone = gradient_alone(lse, self_bias)
        grads = executor.backward(grad, out, lse, q, k, v, plan, pos, real, bar_self(meeting))
        grads[2][alone] += own(grad, alone, meeting.drop)
    by_q, by_k, by_v = (by.to(dtype) for by, dtype in zip(grads, dtypes, strict=True))
    return by_q, by_k, by_v


@_backward.register_fake
def _(grad: Tensor, out: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, order, slot, bucket, pos, real, seed, *ctx.meeting = inputs
    ctx.save_for_backward(*output, q, k, v, order, slot, bucket, pos, real, seed)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    nothing = (None,) * 11
    if grad is None:
        return (None, None, None, *nothing)
    return (*_backward(grad, *ctx.saved_tensors, *ctx.meeting), *nothing)


_forward.register_autograd(_differentiate, setup_context=_save)


def _exact(dtype: torch.dtype) -> torch.dtype:
    """What is computed in: half precision would tell no position past 256 from the next."""
    return torch.promote_types(dtype, torch.float32)


def _wide(*narrow: Tensor) -> list[Tensor]:
    """In the precision that is computed in, which autograd need not store."""
    exact = _exact(narrow[0].dtype)
    return [kept.widened(t, exact) for t in narrow]


def _meeting(
    rules: list[int], causal: bool, self_bias: float, scale: float, rate: float, seed: Tensor | None
) -> Meeting:
    chunk, before, after, wrap, reach, same, once = rules
    told = Rules(chunk, before, after, bool(wrap), reach, bool(same), bool(once))
    return Meeting(told, causal, self_bias, scale, None if seed is None else Drop(rate, seed))


def _plain(meeting: Meeting) -> native.Rules:
    drop = (0.0, 0) if meeting.drop is None else (meeting.drop.rate, int(meeting.drop.seed))
    return native.Rules(*meeting.rules, meeting.causal, meeting.self_bias, meeting.scale, *drop)
