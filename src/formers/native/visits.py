"""Softmax attention by blocks, forwards and backwards, on the CPU in fp32: blocks of 64 queries visit blocks of 64 keys.

It is flash style: nothing of the size of the scores is stored, and the backward pass makes the weights again from the
log-sum-exps. Results do not depend on the number of threads.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from formers.native import kept
from formers.native.library import STALE, Array, call, loaded, missing

BLOCK = 64  # queries, or keys, in a block
TENSORS = ("q", "k", "v", "out", "lse", "total", "grad", "delta", "grad_q", "grad_k", "grad_v", "real")
SIZES = ("batch", "heads", "key_heads", "queries", "keys", "dim", "value_dim", "merged", "places", "parts")
PARTS = 8  # rows and key heads, or pieces of their queries, that the backward pass shares out at least
LOWEST = torch.finfo(torch.float32).min


class View(NamedTuple):
    """One order of the tokens: queries (N, 64) and keys (M, 64) int32, the tokens of each block, -1 behind the last.

    Block n of the queries visits the blocks visited[first[n] : first[n + 1]] of keys, int32. mask: of each visit, int32,
    which of the masks (L, 64), int64, tells for each key the bits of the queries that it meets; -1: all pairs meet.
    """

    queries: Tensor
    keys: Tensor
    first: Tensor
    visited: Tensor
    mask: Tensor
    masks: Tensor


class Table(NamedTuple):
    """Plans, each of some views, in which no pair meets twice; and which of them each row and head (B or 1, H) goes by.

    merged: some queries stand in several views, or in none. places: how many blocks of keys a thread is to hold.
    """

    plans: Sequence[Sequence[View]]
    which: Tensor
    merged: bool
    places: int


class Setting(NamedTuple):
    """scale: of the scores. rate: the share of weights that are dropped, by a hash of `seed` (0 to below 2^31), of the
    head and of the two tokens."""

    scale: float
    rate: float = 0.0
    seed: int = 0


class _View(ctypes.Structure):
    """The same as `View` in source/visits.h, field by field."""

    _fields_ = (*((name, ctypes.c_void_p) for name in View._fields), ("query_blocks", ctypes.c_int64))


class _Visits(ctypes.Structure):
    """The same as `Visits` in source/visits.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in SIZES),
        ("scale", ctypes.c_float),
        ("rate", ctypes.c_double),
        ("seed", ctypes.c_int64),
        *((name, Array) for name in TENSORS),
        *((name, ctypes.c_void_p) for name in ("shift", "plan", "begins", "views")),
    )


def refuses_visits(*tensors: Tensor) -> str | None:
    """Why the native kernels cannot attend with these queries, keys and values, in words; None where they can."""
    for t in tensors:
        if t.device.type != "cpu":
            return f"the native kernels run on the CPU, not on {t.device.type}"
        if t.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            return f"the native kernels compute in float32, which is less exact than {t.dtype}"
    return missing() or _stale()


@cache
def _stale() -> str | None:
    if loaded().formers_visits_size() == ctypes.sizeof(_Visits):
        return None
    return STALE


def visit_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    real: Tensor | None,
    table: Table,
    setting: Setting,
    *,
    threads: int | None = None,
    kernel: str | None = None,
) -> tuple[Tensor, Tensor]:
    """out (B, H, T, E) and the log-sum-exp of each query's scores (B, H, T); 0 and -inf where it meets nothing.

    q (B, H, T, D); k (B, K, S, D), v (B, K, S, E), K dividing H; real (B, S) bool, False at keys that nobody meets, or
    None. threads: PyTorch's number if None. kernel: 'avx512', 'avx2' or 'plain'; the fastest if None.
    """
    out = token_major(q, (*q.shape[:3], v.shape[-1]))
    if table.merged:
        out.zero_()
    lse = q.new_full(q.shape[:3], LOWEST) if table.merged else q.new_empty(q.shape[:3])
    total = torch.zeros_like(lse) if table.merged else None
    tensors = {"q": q, "k": k, "v": v, "real": real, "out": out, "lse": lse, "total": total}
    _run("formers_visit_forward", table, setting, None, tensors, threads, kernel)
    return out, lse


def visit_deltas(grad: Tensor, out: Tensor, *, threads: int | None = None, kernel: str | None = None) -> Tensor:
    """(B, H, T): the sums of grad * out, both (B, H, T, E), which are all that the backward pass wants of outputs."""
    batch, heads, queries, width = out.shape
    delta = out.new_empty(out.shape[:3])
    visits = _Visits(batch, heads, heads, queries, queries, width, width)
    _call("formers_visit_deltas", visits, {"grad": grad, "out": out, "delta": delta}, threads, kernel)
    return delta


def visit_backward(
    grad: Tensor,
    delta: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    real: Tensor | None,
    table: Table,
    setting: Setting,
    *,
    threads: int | None = None,
    kernel: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients by q, k and v, for one by the output, its `visit_deltas` and the log-sum-exps of `visit_forward`."""
    parts = _Parts(table, -(-PARTS // (k.shape[0] * k.shape[1])), k.shape[2])
    grad_q = token_major(q, q.shape)
    if table.merged:
        grad_q.zero_()
    room_k, room_v = parts.room(k), parts.room(v)
    tensors: dict[str, Tensor | None] = {"q": q, "k": k, "v": v, "real": real, "grad": grad, "delta": delta, "lse": lse}
    tensors |= {"grad_q": grad_q, "grad_k": room_k, "grad_v": room_v}
    _run("formers_visit_backward", table, setting, parts, tensors, threads, kernel)
    return grad_q, parts.add(room_k, k), parts.add(room_v, v)


class _Parts:
    """Pieces of the queries, which are worked on at the same time: each adds to room of its own for the gradients by those
    keys that it reaches, which is little more than its share of them where queries see their neighbours."""

    def __init__(self, table: Table, count: int, keys: int) -> None:
        self.reach = [slice(0, keys)] if count == 1 else [_reach(table, part, count) for part in range(count)]
        ends = list(accumulate((keys.stop - keys.start for keys in self.reach), initial=0))
        self.rooms = [slice(*room) for room in pairwise(ends)]
        self.shift = torch.tensor([room.start - keys.start for room, keys in zip(self.rooms, self.reach, strict=True)])

    def room(self, like: Tensor) -> Tensor:
        """Zeros for all parts, one behind the other."""
        return token_major(like, (*like.shape[:2], self.rooms[-1].stop, like.shape[3])).zero_()

    def add(self, found: Tensor, like: Tensor) -> Tensor:
        """What all parts found together, for all keys."""
        if len(self.reach) == 1:
            return found
        total = token_major(like, like.shape).zero_()
        for keys, room in zip(self.reach, self.rooms, strict=True):
            total[:, :, keys] += found[:, :, room]
        return total


def _reach(table: Table, part: int, parts: int) -> slice:
    """From the first to the last of the keys that a part of the queries visits, in any row and head."""
    met = [torch.empty(0, dtype=torch.int32)]
    for view in (view for plan in table.plans for view in plan):
        begin, end = (view.first[len(view.queries) * n // parts] for n in (part, part + 1))
        keys = view.keys[view.visited[begin:end].long().unique()]
        met.append(keys[keys >= 0])
    tokens = torch.cat(met)
    return slice(int(tokens.min()), int(tokens.max()) + 1) if len(tokens) else slice(0, 0)


def token_major(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Room for (B, H, T, D), in which the heads of a token stand side by side, as products of matrices have them."""
    batch, heads, length, width = shape
    return kept.new_empty(like, (batch, length, heads, width)).transpose(1, 2)


def _run(
    function: str,
    table: Table,
    setting: Setting,
    parts: "_Parts | None",
    tensors: dict[str, Tensor | None],
    threads: int | None,
    kernel: str | None,
) -> None:
    q, k, v = (_rows(tensors[name]) for name in ("q", "k", "v"))
    batch, heads, queries, dim = q.shape
    visits = _Visits(batch, heads, k.shape[1], queries, k.shape[2], dim, v.shape[-1], table.merged, table.places)
    if parts is not None:
        visits.parts, visits.shift = len(parts.reach), parts.shift.data_ptr()
    visits.scale, visits.rate, visits.seed = setting
    views = [view for plan in table.plans for view in plan]
    told = (_View * len(views))(*(_View(*(t.data_ptr() for t in view), len(view.queries)) for view in views))
    begins = torch.tensor([0, *(len(plan) for plan in table.plans)]).cumsum(0)
    plan = table.which.expand(batch, heads).contiguous()
    visits.plan, visits.begins, visits.views = plan.data_ptr(), begins.data_ptr(), ctypes.addressof(told)
    _call(function, visits, tensors, threads, kernel)


def _call(
    function: str, visits: _Visits, tensors: dict[str, Tensor | None], threads: int | None, kernel: str | None
) -> None:
    """With the tensors, of which copies must stay until all is done."""
    held = {name: _rows(t) for name, t in tensors.items() if t is not None}
    for name, t in held.items():
        strides = (*t.stride()[:-1], 0, 0)
        setattr(visits, name, Array(t.data_ptr(), strides[0], strides[1], strides[2]))
    call(function, visits, kernel, threads or torch.get_num_threads())


def _rows(t: Tensor | None) -> Tensor:
    if t is None:
        raise TypeError("q, k and v are needed")
    return t if t.stride(-1) == 1 else t.contiguous()
