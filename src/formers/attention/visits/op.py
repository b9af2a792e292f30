"""Attention by blocks as a PyTorch operator, which torch.compile takes as it is and autograd can differentiate."""

from typing import Any

import torch
from torch import Tensor

from formers.attention.sorted.drop import Drop
from formers.native import kept
from formers.native.visits import Setting, Table, View, token_major, visit_backward, visit_deltas, visit_forward

FIELDS = len(View._fields)


def attend_visits(
    q: Tensor, k: Tensor, v: Tensor, real: Tensor | None, table: Table, scale: float, drop: Drop | None = None
) -> Tensor:
    """One softmax for each query over the keys that its plan shows: (B, H, T, E), 0 where it shows none.

    q (B, H, T, D); k (B, K, S, D), v (B, K, S, E), K dividing H, on the CPU, in fp32 or a narrower type, which is
    widened; real (B, S) bool, False at padding, or None.
    """
    tensors = [t for plan in table.plans for view in plan for t in view]
    sizes = [len(plan) for plan in table.plans]
    seed, rate = (None, 0.0) if drop is None else (drop.seed, drop.rate)
    rows = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
    out: Tensor = _forward(*rows, real, seed, table.which, tensors, sizes, table.merged, table.places, scale, rate)[0]
    return out


@torch.library.custom_op("formers::visits", mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    real: Tensor | None,
    seed: Tensor | None,
    which: Tensor,
    views: list[Tensor],
    sizes: list[int],
    merged: bool,
    places: int,
    scale: float,
    rate: float,
) -> tuple[Tensor, Tensor]:
    table, setting = _table(views, sizes, which, merged, places), _setting(scale, rate, seed)
    wide_q, wide_k, wide_v = _wide(q, k, v)
    out, lse = visit_forward(wide_q, wide_k, wide_v, real, table, setting)
    return out.to(v.dtype), lse


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return token_major(v, (*q.shape[:3], v.shape[-1])), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.custom_op("formers::visits_deltas", mutates_args=())
def _deltas(grad: Tensor, out: Tensor) -> Tensor:
    wide_grad, wide_out = _wide(grad, out)
    return visit_deltas(wide_grad, wide_out)


@_deltas.register_fake
def _(grad: Tensor, out: Tensor) -> Tensor:
    return out.new_empty(out.shape[:3], dtype=torch.float32)


@torch.library.custom_op("formers::visits_backward", mutates_args=())
def _backward(
    grad: Tensor,
    delta: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    real: Tensor | None,
    seed: Tensor | None,
    which: Tensor,
    views: list[Tensor],
    sizes: list[int],
    merged: bool,
    places: int,
    scale: float,
    rate: float,
) -> tuple[Tensor, Tensor, Tensor]:
    table, setting = _table(views, sizes, which, merged, places), _setting(scale, rate, seed)
    wide_grad, wide_q, wide_k, wide_v = _wide(grad, q, k, v)
    by_q, by_k, by_v = visit_backward(wide_grad, delta, lse, wide_q, wide_k, wide_v, real, table, setting)
    return by_q.to(q.dtype), by_k.to(k.dtype), by_v.to(v.dtype)


@_backward.register_fake
def _(grad: Tensor, delta: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, ...]:
    by_q, by_k, by_v = (token_major(t, t.shape) for t in (q, k, v))
    return by_q, by_k, by_v


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, real, seed, which, views, *ctx.plain = inputs
    ctx.save_for_backward(*output, q, k, v, real, seed, which, *views)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, _: None) -> tuple[Any, ...]:
    out, *saved = ctx.saved_tensors
    views = saved[7:]
    by: tuple[Tensor | None, ...] = (None,) * 3
    if grad is not None:
        delta = _deltas(grad, out)
        del out
        ctx.maybe_clear_saved_tensors()  # unless the graph is kept, outputs make room for the gradients
        by = _backward(grad, delta, *saved[:7], views, *ctx.plain)
    return (*by, None, None, None, [None] * len(views), None, None, None, None, None)


_forward.register_autograd(_differentiate, setup_context=_save)


def _wide(*narrow: Tensor) -> list[Tensor]:
    """In the precision that the kernels compute in, which autograd need not store."""
    return [kept.widened(t, torch.float32) for t in narrow]


def _table(views: list[Tensor], sizes: list[int], which: Tensor, merged: bool, places: int) -> Table:
    each = iter([View(*views[n : n + FIELDS]) for n in range(0, len(views), FIELDS)])
    return Table([[next(each) for _ in range(size)] for size in sizes], which, merged, places)


def _setting(scale: float, rate: float, seed: Tensor | None) -> Setting:
    return Setting(scale, rate, 0 if seed is None else int(seed))
