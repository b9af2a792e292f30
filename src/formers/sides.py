"""Two inputs in one sequence, a global one and a long one, told apart by marks: ETC, arXiv:2004.08483.

The mark "global" is above 0 at tokens of the global input, which stand before the long ones. The mark "segment" says
which segment of the text, such as a sentence, a long token is in and a global token sums up; below 0: none.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from formers.places import Places, Spots

GLOBAL, SEGMENT = "global", "segment"


def are_global(at: Spots | Places) -> Tensor:
    """Which tokens are global; none where the call gives no marks."""
    mark = at.marks.get(GLOBAL)
    return torch.zeros_like(at.pos, dtype=torch.bool) if mark is None else mark > 0


def segments(at: Spots | Places) -> Tensor:
    """The segment of each token; below 0 where the call gives no marks."""
    mark = at.marks.get(SEGMENT)
    return torch.full_like(at.pos, -1) if mark is None else mark


def in_one_segment(q: Spots, k: Spots) -> Tensor:
    """Which pairs are of one segment."""
    mine = segments(q)
    return (mine == segments(k)) & (mine >= 0)


def require_sides(at: Places) -> None:
    """Raise ValueError unless the call gives both marks, so that each segment has a global token, or neither."""
    given = [name for name in (GLOBAL, SEGMENT) if name in at.marks]
    if len(given) == 1:
        other = SEGMENT if given == [GLOBAL] else GLOBAL
        raise ValueError(
            f"the mark {given[0]!r} is given and {other!r} is not: call the model with "
            f'marks={{"{GLOBAL}": ..., "{SEGMENT}": ...}}, or with neither, where no token is global'
        )
    if given:
        _require_global_tokens(at)


def _require_global_tokens(at: Places) -> None:
    """Of every segment that a long token is in."""
    of_long, of_global, segment = _sides(at)
    told = torch.where(of_global, segment, -1).sort(dim=1).values
    found = told.gather(1, torch.searchsorted(told, segment.contiguous()).clamp(max=told.shape[1] - 1)) == segment
    alone = of_long & (segment >= 0) & ~found
    if alone.any():
        row, place = (int(i) for i in alone.nonzero()[0])
        raise ValueError(
            f"segment {int(segment[row, place])} of row {row} has no global token: put one with that segment before the "
            "long tokens, or give the tokens of no segment the segment -1"
        )


def _sides(at: Places) -> tuple[Tensor, Tensor, Tensor]:
    """Which real tokens are long, which global, and the segments of all: (B, T) each."""
    mark = are_global(at)
    real = torch.ones_like(mark) if at.real is None else at.real
    return real & ~mark, real & mark, segments(at).expand_as(mark)


class GlobalRows(NamedTuple):
    """Where global tokens stand: place (B, G), G of the row that has most; real (B, G), False where a row has fewer."""

    place: Tensor
    real: Tensor

    def take(self, x: Tensor) -> Tensor:
        """x (B, T, M) -> (B, G, M)."""
        return x.gather(1, self.place[..., None].expand(-1, -1, x.shape[-1]))

    def put(self, x: Tensor, new: Tensor) -> Tensor:
        """x (B, T, M) with `new` (B, G, M) in place of what `take` takes, where there is a token."""
        row, number = self.real.nonzero(as_tuple=True)
        return x.index_put((row, self.place[row, number]), new.to(x.dtype)[row, number])

    def places(self, at: Places) -> Places:
        """Where the tokens stand that are taken."""
        real = self.real if at.real is None else self._of(at.real) & self.real
        return Places(self._of(at.pos), real, {name: self._of(mark) for name, mark in at.marks.items()})

    def _of(self, t: Tensor) -> Tensor:
        return t.expand(len(self.place), -1).gather(1, self.place)


def global_rows(at: Places) -> GlobalRows | None:
    """The rows of the global tokens; None where there is none."""
    if GLOBAL not in at.marks:
        return None
    return rows_where(_sides(at)[1])


def rows_where(here: Tensor) -> GlobalRows | None:
    """The rows where `here` (B, T) is True, in the order of the tokens; None where it nowhere is."""
    most = int(here.sum(1).max()) if here.numel() else 0
    if not most:
        return None
    index = here.long().argsort(dim=1, descending=True, stable=True)[:, :most]
    return GlobalRows(index, here.gather(1, index))
