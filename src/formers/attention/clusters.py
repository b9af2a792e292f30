"""Plans of clusters, whose members meet one another; a token may be in several, and its outputs are averaged."""

from dataclasses import dataclass

import torch
from torch import Tensor

from formers.attention.plan import Plan, Tiles
from formers.attention.sorted.lane import Meeting
from formers.attention.sorted.op import attend_sorted
from formers.attention.sorted.plan import Rules, SortedPlan


@dataclass(frozen=True)
class ClusterPlan:
    """queries and keys: (B, H, C, w) the tokens of each cluster, -1 for nothing; keys=None: they are the queries, each
    cluster's in order."""

    queries: Tensor
    keys: Tensor | None = None

    @property
    def rules(self) -> Rules:
        """Written out one after another, each cluster is a chunk that meets itself."""
        return Rules(self.queries.shape[-1], before=0)

    def tiles(self) -> Plan:
        """The same pairs as indexed tiles."""
        return Plan((Tiles(self.queries, self.queries if self.keys is None else self.keys),), mean=True)


def attend_clusters(
    q: Tensor, k: Tensor, v: Tensor, plan: ClusterPlan, pos: Tensor, real: Tensor | None, meeting: Meeting
) -> Tensor:
    """The mean (B, H, S, E) of a query's outputs in its clusters, of those in which it sees anything; 0 in none.

    q, k (B, H, S, D), v (B, H, S, E) of the same tokens; pos (1 or B, S); real (B, S) bool, False at padding, or None;
    `meeting` has the plan's rules. The members of all clusters are written out one after another, each its own chunk.
    """
    batch, heads, length, _ = q.shape
    members = plan.queries.flatten(2).flatten(0, 1)
    first = torch.arange(batch * heads, device=q.device)[:, None] * length
    rows = members.clamp(min=0) + first
    at = pos.expand(batch, -1).repeat_interleave(heads, 0).flatten()[rows]
    there = None if real is None else members >= 0  # padding belongs to no cluster; without it, all members are there
    own = torch.arange(members.shape[1], device=q.device, dtype=torch.int32)[None, None, None]
    layout = SortedPlan(own, own, torch.zeros_like(own), meeting.rules)
    q, k, v = (_written(t, rows) for t in (q, k, v))
    out, lse = attend_sorted(q, k, v, layout, at, there, meeting)
    out, seeing = out[:, 0], lse[:, 0].isfinite()
    if there is not None:
        out, seeing = out * there[..., None], seeing & there
    return _mean(out, seeing, rows, torch.Size((batch, heads, length)))


def _written(x: Tensor, rows: Tensor) -> Tensor:
    """x (B, H, S, D) at rows (B * H, n) of all its vectors -> (B * H, 1, n, D)."""
    return x.reshape(-1, x.shape[-1]).index_select(0, rows.flatten()).view(rows.shape[0], 1, rows.shape[1], -1)


def _mean(out: Tensor, seeing: Tensor, rows: Tensor, shape: torch.Size) -> Tensor:
    """The mean (B, H, S, E) over the outputs (B * H, n, E) of each row, of those that saw anything."""
    rows, size = rows.flatten(), shape.numel()
    times = out.new_zeros(size).index_add(0, rows, seeing.flatten().to(out.dtype))
    total = out.new_zeros(size, out.shape[-1]).index_add(0, rows, out.flatten(0, 1))
    return (total / times.clamp(min=1)[:, None]).unflatten(0, shape)
