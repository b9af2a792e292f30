"""Spans: between which positions some places stand, by which a pattern bounds whole blocks of pairs at a time."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from formers.places import Spots


class Span:
    """lo, hi: the lowest and the highest position, both included. Whole numbers, or tensors of them: one for each block."""

    def __init__(self, lo: Any, hi: Any) -> None:
        self.lo, self.hi = lo, hi


class BlockSpans(Span):
    """The spans of blocks of places, as rows (axis 1) or as columns (axis 0) of what bounds them all at once.

    spots: (1 or B, N, R) each, where the R places of N blocks stand; real: (1 or B, N, R), False at what is no place. A
    block's bounds hold in all rows of the batch. In one without a place nothing is bounded: `empty` says which these are.
    """

    def __init__(self, spots: Spots, real: Tensor, axis: int) -> None:
        self._spots, self._real, self._axis = spots, real, axis
        self.empty = ~real.any((0, 2)).unsqueeze(axis)
        super().__init__(*self.range(lambda at: at.pos))

    def range(self, of: Callable[[Spots], Tensor]) -> tuple[Tensor, Tensor]:
        """The least and the most that is told of the places of each block, as (N, 1) or (1, N)."""
        told = of(self._spots)
        bounds = torch.iinfo(torch.int64)
        least = torch.where(self._real, told, bounds.max).amin((0, 2))
        most = torch.where(self._real, told, bounds.min).amax((0, 2))
        return least.unsqueeze(self._axis), most.unsqueeze(self._axis)
