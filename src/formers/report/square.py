"""How much of a square of queries and keys a pattern shows: for drawings, and for counting operations."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from formers.attention.pattern import Pattern
from formers.places import Spots
from formers.report.parts import walk
from formers.spec.core import Site, Spec

PIECE = 1 << 22  # pairs looked at at a time
EXACT = 4096  # up to this length every query is counted; beyond it, evenly spaced ones


Marks = Mapping[str, Tensor]


def visible(pattern: Pattern, heads: int, rows: Tensor, length: int, marks: Marks | None = None) -> Tensor:
    """Which of `length` keys the queries at positions `rows` (R,) see: bool (1 or H, R, length).

    marks: (length,) each; None: every mark that the pattern reads is the same for all tokens, one document, one segment.
    """
    if marks is None:
        marks = {mark: torch.zeros(length, dtype=torch.int64) for mark in marks_of(pattern)}
    q = Spots(rows[None, None, :, None], {name: mark[rows][None, None, :, None] for name, mark in marks.items()})
    k = Spots(torch.arange(length)[None, None, None], {name: mark[None, None, None] for name, mark in marks.items()})
    seen = pattern.visible(q, k, torch.arange(heads)[:, None, None])
    return torch.broadcast_to(seen[0], (seen.shape[1], len(rows), length))


def shares(pattern: Pattern, heads: int, length: int, cells: int, marks: Marks | None = None) -> Tensor:
    """The square of `length` tokens as cells x cells: the share of the pairs in each that is seen, (1 or H, C, C)."""
    edges = _edges(length, cells)
    size = edges.diff()
    rows = []
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        columns = visible(pattern, heads, torch.arange(start, stop), length, marks).sum(1).cumsum(-1)
        before = torch.nn.functional.pad(columns, (1, 0))[..., edges]
        rows.append(before.diff(dim=-1) / ((stop - start) * size))
    return torch.stack(rows, 1)


def shares_of(pairs: Tensor, length: int, cells: int) -> Tensor:
    """As `shares`, of pairs that are listed, each once, as query * length + key: (C, C)."""
    edges = _edges(length, cells)
    size = edges.diff()
    cell = torch.searchsorted(edges, torch.arange(length), right=True) - 1
    counts = torch.bincount(cell[pairs // length] * cells + cell[pairs % length], minlength=cells * cells)
    return counts.view(cells, cells) / (size[:, None] * size)


def _edges(length: int, cells: int) -> Tensor:
    """Where each cell of a side begins, and the last one ends."""
    return torch.linspace(0, length, cells + 1).round().long()


def keys_seen(pattern: Pattern, heads: int, length: int) -> tuple[float, float]:
    """How many keys a query sees among `length` tokens: the mean of all queries, and the last one; means of the heads.

    Exact up to a length of 4096; beyond it the mean is that of evenly spaced queries.
    """
    rows = torch.arange(length)
    if length > EXACT:
        count = max(1, EXACT * EXACT // length)
        rows = ((torch.arange(count) + 0.5) * (length / count)).long()
    counted = sum(float(seen.sum()) / len(seen) for seen in _pieces(pattern, heads, rows, length))
    last = visible(pattern, heads, torch.tensor([length - 1]), length)
    return counted / len(rows), float(last.sum()) / len(last)


def _pieces(pattern: Pattern, heads: int, rows: Tensor, length: int) -> Iterator[Tensor]:
    for some in rows.split(max(1, PIECE // length)):
        yield visible(pattern, heads, some, length)


def marks_of(part: Spec) -> list[str]:
    """The names of the marks that the patterns in a part read, by their fields named `mark`."""
    return [part.mark for _, part, _ in walk(part, Site(dim=1)) if hasattr(part, "mark")]
