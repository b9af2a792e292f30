"""Softmax attention over sorted chunks, forwards and backwards, in PyTorch: nothing of the size of all scores is stored.

Head by head and piece by piece, so that on a CPU the work stays in its cache. The backward pass makes the weights again
from the log-sum-exps.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from formers.attention.sorted.charge import BARRED
from formers.attention.sorted.drop import Drop
from formers.attention.sorted.lane import LOG2E, Head, Lane, Meeting, Room
from formers.attention.sorted.plan import SortedPlan

NOTHING = -1e30  # the log-sum-exp of a query that meets nothing, while rounds are being merged


def forward(
    q: Tensor, k: Tensor, v: Tensor, plan: SortedPlan, pos: Tensor, real: Tensor | None, meeting: Meeting
) -> tuple[Tensor, Tensor]:
    """out (B, H, S, E) and the log-sum-exp of each query's scores (B, H, S); 0 and -inf where it meets nothing.

    q, k (B, H, S, D); v (B, H, S, E); pos (1 or B, S); real (B, S) bool, False at padding, or None.
    """
    out, lse = torch.empty_like(v), q.new_empty(q.shape[:3])
    room = Room(q)
    for (b, h), head in _heads(q, k, v, plan, pos, real, meeting.drop):
        _forward_head(head, meeting, room, out[b, h], lse[b, h])
    return out, lse


def backward(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    plan: SortedPlan,
    pos: Tensor,
    real: Tensor | None,
    meeting: Meeting,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients by q, k and v, for one by `out` and what `forward` returned."""
    grads = tuple(torch.zeros_like(t) for t in (q, k, v))
    room = Room(q)
    for (b, h), head in _heads(q, k, v, plan, pos, real, meeting.drop):
        delta = (grad[b, h] * out[b, h]).sum(-1)
        seen = (lse[b, h] * LOG2E).masked_fill(lse[b, h].isneginf(), -NOTHING)  # weighs nothing: 2^(score - 1e30)
        for r in range(head.order.shape[0]):
            _backward_lane(Lane(head, r, meeting, room), grad[b, h], seen, delta, *(g[b, h] for g in grads))
    return grads[0], grads[1], grads[2]


def _heads(
    q: Tensor, k: Tensor, v: Tensor, plan: SortedPlan, pos: Tensor, real: Tensor | None, drop: Drop | None
) -> Iterator[tuple[tuple[int, int], Head]]:
    batch, heads = q.shape[:2]
    order, slot, bucket = (t.expand(batch, heads, -1, -1) for t in (plan.order, plan.slot, plan.bucket))
    spots = pos.to(q.dtype).expand(batch, -1)
    words = None if drop is None else drop.words(batch, heads, q.shape[2], q.device)
    for b in range(batch):
        for h in range(heads):
            planned = order[b, h], slot[b, h], bucket[b, h]
            told = None if real is None else real[b], None if words is None else words[b, h]
            yield (b, h), Head(q[b, h], k[b, h], v[b, h], *planned, spots[b], *told)


def _forward_head(head: Head, meeting: Meeting, room: Room, out: Tensor, lse: Tensor) -> None:
    for r in range(head.order.shape[0]):
        slot = head.slot[r]
        mixed, total = _forward_lane(Lane(head, r, meeting, room))
        mixed, total = room.gather("sorted back", mixed, slot), total[slot]
        if r == 0:
            out.copy_(mixed)
            lse.copy_(total)
            continue
        both = torch.logaddexp(lse, total)
        out.mul_((lse - both).exp_()[:, None]).addcmul_(mixed, (total - both).exp_()[:, None])
        lse.copy_(both)
    nothing = lse <= NOTHING / 2
    if nothing.any():
        lse.masked_fill_(nothing, float("-inf"))
        out.masked_fill_(nothing[:, None], 0)


def _forward_lane(lane: Lane) -> tuple[Tensor, Tensor]:
    """Outputs (N * c, E) and log-sum-exps (N * c,) of one round, in the order of its slots."""
    chunk, room = lane.meeting.rules.chunk, lane.room
    v = room.gather("v", lane.head.v, lane.columns)
    mixed, total = room.take("mixed", lane.count, chunk, v.shape[1]), room.take("total", lane.count, chunk)
    for piece, (scores, *scratch) in _with_scratch(lane, 3):
        lane.scores(piece, scores, (scratch[0], scratch[1]))
        peak = scores.amax(-1, keepdim=True)
        weights = scores.sub_(peak).exp2_()
        sums = weights.sum(-1, keepdim=True)
        torch.bmm(lane.drop(weights, piece), lane.windows(v, piece), out=mixed[piece])
        mixed[piece].div_(sums)
        torch.add(peak, sums.log2_(), out=sums)
        total[piece] = torch.where(peak > BARRED, sums / LOG2E, NOTHING)[..., 0]
    return mixed.flatten(0, 1), total.flatten()


def _backward_lane(
    lane: Lane, grad: Tensor, lse: Tensor, delta: Tensor, grad_q: Tensor, grad_k: Tensor, grad_v: Tensor
) -> None:
    """Add the gradients of one round, in the order of the tokens, to grad_q, grad_k (S, D) and grad_v (S, E)."""
    head, room, rows, columns = lane.head, lane.room, lane.rows, lane.columns
    v, upstream = room.gather("v", head.v, columns), room.gather("upstream", grad, rows)
    lse, delta = lse[rows], delta[rows]
    lse[head.order.shape[1] :] = -NOTHING  # what fills the last chunk weighs nothing
    into_q = room.take("into q", *lane.q.shape)
    into_k, into_v = room.take("into k", *lane.k.shape).zero_(), room.take("into v", *v.shape).zero_()
    for piece, (weights, slope, *scratch) in _with_scratch(lane, 4):
        lane.scores(piece, weights, (scratch[0], scratch[1]))
        up, value = lane.chunks(upstream, piece), lane.windows(v, piece)
        weights.sub_(lane.chunks(lse[:, None], piece)).exp2_()
        torch.bmm(up, value.mT, out=slope)
        lane.drop(slope, piece).sub_(lane.chunks(delta[:, None], piece)).mul_(weights)
        torch.bmm(slope, lane.windows(lane.k, piece), out=lane.chunks(into_q, piece))
        _add_windows(lane, piece, into_k, slope.mT, lane.chunks(lane.q, piece))
        _add_windows(lane, piece, into_v, lane.drop(weights, piece).mT, up)
    real = slice(None, head.order.shape[1])
    grad_q.index_add_(0, rows[real], into_q[real], alpha=lane.meeting.scale)
    grad_k.index_add_(0, columns, into_k, alpha=1 / LOG2E)
    grad_v.index_add_(0, columns, into_v)


def _add_windows(lane: Lane, piece: slice, into: Tensor, left: Tensor, right: Tensor) -> None:
    """Add the products (n, C, D) of windows, which overlap, to the slots of the keys."""
    rules = lane.meeting.rules
    windows = lane.room.take("windows", *left.shape[:2], right.shape[2])
    torch.bmm(left, right, out=windows)
    for w in range(1 + rules.before + rules.after):
        part = windows[:, w * rules.chunk : (w + 1) * rules.chunk]
        lane.chunks(into, slice(piece.start + w, piece.stop + w)).add_(part)


def _with_scratch(lane: Lane, count: int) -> Iterator[tuple[slice, list[Tensor]]]:
    """Each piece with `count` tensors of the size of its scores, used again for every piece."""
    for piece in lane.pieces():
        shape = piece.stop - piece.start, lane.meeting.rules.chunk, lane.wide
        yield piece, [lane.room.take(f"scores {i}", *shape) for i in range(count)]
