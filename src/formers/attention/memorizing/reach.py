"""Which slots of a memory a query may retrieve: those of earlier segments of its document, so many tokens back."""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from formers.places import Places

DOCUMENT = "document"  # the mark that tells documents of one row apart, see `data.batches.document_marks`


class Reach(NamedTuple):
    """What T queries may retrieve of S slots. R is 1 or B rows.

    lo, hi: (R, T), the positions from which and up to which, `hi` not included. pos: (R, S), of the slots.
    real: (R, S), None: all slots are tokens. documents: of the queries (B, T) and of the slots (B, S), None: all alike.
    """

    lo: Tensor
    hi: Tensor
    pos: Tensor
    real: Tensor | None = None
    documents: tuple[Tensor, Tensor] | None = None

    def among(self, slots: slice) -> Tensor:
        """May each query retrieve each of these slots? (R, T, n)."""
        pos = self.pos[:, None, slots]
        seen = (pos >= self.lo[..., None]) & (pos < self.hi[..., None])
        if self.real is not None:
            seen = seen & self.real[:, None, slots]
        if self.documents is not None:
            seen = seen & (self.documents[0][..., None] == self.documents[1][:, None, slots])
        return seen

    def row(self, number: int) -> "Reach":
        """That of one row of the batch, R = 1."""
        own = [None if t is None else t[number : number + 1] if len(t) > 1 else t for t in self[:4]]
        documents = None
        if self.documents is not None:
            asked, told = (t[number : number + 1] if len(t) > 1 else t for t in self.documents)
            documents = asked, told
        return Reach(own[0], own[1], own[2], own[3], documents)  # type: ignore[arg-type]

    def of(self, queries: slice | Tensor) -> "Reach":
        """That of some of the queries."""
        documents = None if self.documents is None else (self.documents[0][:, queries], self.documents[1])
        return Reach(self.lo[:, queries], self.hi[:, queries], self.pos, self.real, documents)

    def at(self, slots: Tensor) -> Tensor:
        """May each query retrieve the slots (T, n) that were picked for it? For one row, R = 1; (T, n)."""
        pos = self.pos[0][slots]
        seen = (pos >= self.lo[0, :, None]) & (pos < self.hi[0, :, None])
        if self.real is not None:
            seen = seen & self.real[0][slots]
        if self.documents is not None:
            seen = seen & (self.documents[0][0, :, None] == self.documents[1][0][slots])
        return seen


class Piece(NamedTuple):
    """Neighbouring queries, and the slots that hold all that any of them may retrieve.

    reach: exactly what, None: each query all of these slots, in every row.
    """

    queries: slice
    slots: slice
    reach: Reach | None


def pieces_of(at: Places, to: Places, segment: int, memory: int) -> list[Piece]:
    """The queries of a call in pieces that retrieve from about the same slots; without those that retrieve nothing.

    at: where the queries stand; to: where the slots do, which end with the tokens of this very call. A query of the segment
    s = position // segment may retrieve positions from s * segment - memory to below s * segment, of its document.
    """
    plain = at.start is not None and to.start is not None and DOCUMENT not in at.marks
    found = []
    for queries in _cuts(at, segment):
        piece = (_of_run if plain else _of_rows)(at, to, queries, segment, memory)
        if piece.slots.stop > piece.slots.start:
            found.append(piece)
    return found


def _cuts(at: Places, segment: int) -> list[slice]:
    """Queries by segment; where rows stand at different positions, so many at a time."""
    first = 0 if at.start is None else at.start % segment
    ends = [0, *range(segment - first, at.length, segment), at.length]
    return [slice(*pair) for pair in pairwise(ends)]


def _of_run(at: Places, to: Places, queries: slice, segment: int, memory: int) -> Piece:
    """Where every row stands at the same positions without padding: all queries of a segment retrieve alike."""
    assert at.start is not None
    assert to.start is not None
    begin = (at.start + queries.start) // segment * segment
    return Piece(queries, slice(max(0, begin - memory - to.start), max(0, begin - to.start)), None)


def _of_rows(at: Places, to: Places, queries: slice, segment: int, memory: int) -> Piece:
    """Any rows: the slots from the first to the last that some query may retrieve, and what each may."""
    hi = at.pos[:, queries] // segment * segment
    lo = hi - memory
    if at.real is not None:  # padding retrieves nothing, so it does not widen what is looked at
        padding = ~at.real[:, queries]
        lo, hi = (bound.expand_as(padding).masked_fill(padding, 0) for bound in (lo, hi))
    some = (to.pos < hi.amax(1, keepdim=True)) & (to.pos >= _least(lo, hi))
    documents = None
    if DOCUMENT in at.marks:
        documents = at.marks[DOCUMENT][:, queries], to.marks[DOCUMENT]
        some = some & torch.isin(documents[1].contiguous(), documents[0].contiguous())
    if to.real is not None:
        some = some & to.real
    met = some.any(0).nonzero()[:, 0]
    slots = slice(int(met[0]), int(met[-1]) + 1) if len(met) else slice(0, 0)
    if documents is not None:
        documents = documents[0], documents[1][:, slots]
    real = None if to.real is None else to.real[:, slots]
    reach = Reach(lo, hi, to.pos[:, slots], real, documents)
    return Piece(queries, slots, None if _is_all(reach) else reach)


def _least(lo: Tensor, hi: Tensor) -> Tensor:
    """The lowest bound (R, 1) of those queries that may retrieve something."""
    return torch.where(hi > 0, lo, torch.iinfo(lo.dtype).max).amin(1, keepdim=True)


def _is_all(reach: Reach) -> bool:
    """Surely every query may retrieve every slot."""
    if reach.real is not None and not reach.real.all():
        return False
    if reach.documents is not None:
        asked, told = reach.documents
        if not ((asked == asked[:, :1]).all() and (told == asked[:, :1]).all()):
            return False
    inside = (reach.pos >= reach.lo.amax(1, keepdim=True)) & (reach.pos < reach.hi.amin(1, keepdim=True))
    return bool(inside.all())
