"""Plans: which tiles of the score matrix are worth working on. A plan schedules; what is visible is decided again in
every tile, so a wasteful plan is slow and never wrong."""

from dataclasses import dataclass

import torch
from torch import Tensor

from formers.attention.pattern import Pattern
from formers.attention.span import BlockSpans
from formers.places import Places, Spots

BLOCK = 64  # rows and columns of a scheduled block


@dataclass(frozen=True)
class Tiles:
    """Queries q_index[..., n, :] meet keys k_index[..., n, :]; an index of -1 is nothing.

    q_index: (1 or B, 1 or H, N, R); k_index: (1 or B, 1 or H, N, C). meet: (1 or B, 1 or H, N, R, C) bool, which of
    these pairs do meet, where content decides that too (the same bucket, say); None: all.
    """

    q_index: Tensor
    k_index: Tensor
    meet: Tensor | None = None


@dataclass(frozen=True)
class Plan:
    """Groups of equally shaped tiles.

    disjoint: every query is in one tile at most, so partial softmaxes need no merging.
    dense: it is one tile of everything, in order.
    mean: a query in several tiles gets the mean of their outputs, of those that show it anything, in place of one
        softmax over all of them.
    """

    groups: tuple[Tiles, ...]
    disjoint: bool = False
    dense: bool = False
    mean: bool = False

    @property
    def pairs(self) -> int:
        """How many scores the plan computes, for each row of the batch and each head."""
        return sum(t.q_index.shape[-2] * t.q_index.shape[-1] * t.k_index.shape[-1] for t in self.groups)


def dense_plan(q_len: int, k_len: int, device: torch.device | None = None) -> Plan:
    """One tile that holds everything."""
    rows, columns = (torch.arange(n, device=device)[None, None, None] for n in (q_len, k_len))
    return Plan((Tiles(rows, columns),), disjoint=True, dense=True)


def block_plan(pattern: Pattern, at: Places, to: Places, block: int = BLOCK) -> Plan:
    """Only the blocks that the pattern reaches in any row of the batch; rows of like fan-in share a group."""
    q_index, q = _blocks(at, block, 1)
    k_index, k = _blocks(to, block, 0)
    touched = pattern.reaches(q, k) & ~q.empty & ~k.empty
    fan_in = touched.sum(1)
    width = torch.where(fan_in > 0, 2 ** torch.ceil(torch.log2(fan_in.clamp(min=1).float())).long(), 0)
    groups = []
    for w in width.unique().tolist():
        if w == 0:
            continue
        rows = (width == w).nonzero()[:, 0]
        kept, columns = touched[rows].float().topk(min(w, touched.shape[1]), dim=1)
        k_rows = torch.where(kept[..., None] > 0, k_index[columns], -1).flatten(1)
        groups.append(Tiles(q_index[rows][None, None], k_rows[None, None]))
    return Plan(tuple(groups), disjoint=True)


def _blocks(places: Places, block: int, axis: int) -> tuple[Tensor, BlockSpans]:
    """Indices (N, block) padded with -1, and what real tokens span in each block."""
    device, length = places.device, places.length
    count = -(-length // block)
    index = torch.arange(count * block, device=device)
    index = torch.where(index < length, index, -1).view(count, block)
    spots = Spots.of(places, lambda t: t[:, index.clamp(min=0)])
    real = (index >= 0)[None]
    if places.real is not None:
        real = real & places.real[:, index.clamp(min=0)]
    return index, BlockSpans(spots, real, axis)
