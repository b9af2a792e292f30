"""Planning visits: which blocks of keys the blocks of queries see, in whole or in part, for any pattern over places.

A pair of blocks is left out where the pattern surely shows nothing of it, taken whole where it surely shows all, and else
looked at pair by pair. So a plan is exact, and whoever runs it needs to know nothing of patterns.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from formers.attention.pattern import Pattern
from formers.attention.span import BlockSpans
from formers.attention.visits.terms import Term, order_of, terms_of
from formers.native.visits import BLOCK, View
from formers.places import Spots

PIECE = 256  # partly seen blocks that are looked at together: some megabytes at a time
HEAD = torch.zeros(1, 1, 1, dtype=torch.int64)  # patterns of one head do not ask for it


@lru_cache(maxsize=64)
def plan_run(pattern: Pattern, start: int, length: int, first: int, count: int) -> tuple[View, ...]:
    """The plan of `length` queries from position `start` on and `count` keys from `first` on, for one head's pattern."""
    at, to = (Spots(torch.arange(begin, begin + size), {}) for begin, size in ((start, length), (first, count)))
    return plan_spots(pattern, at, to)


def plan_spots(pattern: Pattern, at: Spots, to: Spots) -> tuple[View, ...]:
    """The plan of queries and keys at these places, one number each (T,) and (S,), for one head's pattern."""
    views = (_view(term, at, to) for term in terms_of(pattern, at, to))
    return tuple(view for view in views if len(view.visited))


def moved(views: tuple[View, ...], queries: Tensor, keys: Tensor) -> tuple[View, ...]:
    """The same plan for tokens that stand elsewhere: token i is now queries[i] or keys[i], int32."""
    return tuple(view._replace(queries=_told(queries, view.queries), keys=_told(keys, view.keys)) for view in views)


def _told(tokens: Tensor, blocks: Tensor) -> Tensor:
    return torch.where(blocks < 0, blocks, tokens[blocks.clamp(min=0).long()])


def _view(term: Term, at: Spots, to: Spots) -> View:
    rows, row_spans = _blocks(at, order_of(term.queries, at, queries=True), 1)
    columns, column_spans = _blocks(to, order_of(term.keys, to, queries=False), 0)
    touched = term.pattern.reaches(row_spans, column_spans) & ~row_spans.empty & ~column_spans.empty
    whole = torch.as_tensor(term.pattern.covers(row_spans, column_spans)) & touched
    if term.earlier is not None:
        whole = whole & ~term.earlier.reaches(row_spans, column_spans)
    block, visited = touched.nonzero(as_tuple=True)
    partly = ~whole[block, visited]
    mask = torch.full(block.shape, -1, dtype=torch.int32)
    masks, mask[partly] = _masks(term, at, to, rows[block[partly]], columns[visited[partly]])
    kept = mask > -2
    block, visited, mask = block[kept], visited[kept], mask[kept]
    first = torch.zeros(len(rows) + 1, dtype=torch.int32)
    first[1:] = torch.bincount(block, minlength=len(rows)).cumsum(0)
    return View(rows.int(), columns.int(), first, visited.int(), mask, masks)


def _blocks(spots: Spots, order: Tensor | None, axis: int) -> tuple[Tensor, BlockSpans]:
    """The tokens of each block (N, 64), -1 behind the last, and what they span."""
    length = len(spots.pos)
    tokens = torch.arange(length) if order is None else order.argsort(stable=True)
    blocks = torch.nn.functional.pad(tokens, (0, -length % BLOCK), value=-1).view(-1, BLOCK)
    return blocks, BlockSpans(_at(spots, blocks).each(lambda t: t[None]), (blocks >= 0)[None], axis)


def _at(spots: Spots, tokens: Tensor) -> Spots:
    index = tokens.clamp(min=0)
    return spots.each(lambda t: t[index])


def _masks(term: Term, at: Spots, to: Spots, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """The masks (L, 64) of pairs of blocks, tokens (n, 64) each, and which each pair has (n,); -1: all pairs, -2: none."""
    words = [_words(term, at, to, rows[n : n + PIECE], columns[n : n + PIECE]) for n in range(0, len(rows), PIECE)]
    if not words:
        return torch.zeros(0, BLOCK, dtype=torch.int64), torch.zeros(0, dtype=torch.int32)
    all_words = np.concatenate(words)
    found, which = np.unique(all_words.view(f"V{8 * BLOCK}")[:, 0], return_inverse=True)
    masks = torch.from_numpy(found.view(np.int64).reshape(-1, BLOCK).copy())
    told = torch.arange(len(masks), dtype=torch.int32)
    told[(masks == -1).all(1)] = -1
    told[(masks == 0).all(1)] = -2
    return masks, told[torch.from_numpy(which.reshape(-1))]


def _words(
    term: Term, at: Spots, to: Spots, rows: Tensor, columns: Tensor
) -> "np.ndarray[tuple[int, int], np.dtype[np.int64]]":
    """(n, 64): for each key the bits of the queries that see it. What is no token is told as if it were seen by all of a
    block, or by none, whichever the others are, so that masks that are alike come out equal."""
    q, k = _at(at, rows).each(lambda t: t[:, None, :]), _at(to, columns).each(lambda t: t[:, :, None])
    seen = term.pattern.visible(q, k, HEAD)
    if term.earlier is not None:
        seen = seen & ~term.earlier.visible(q, k, HEAD)
    pairs = (rows >= 0)[:, None, :] & (columns >= 0)[:, :, None]
    seen = seen.expand_as(pairs)
    every = (seen | ~pairs).all(2).all(1)
    seen = torch.where(every[:, None, None], True, seen & pairs)
    packed = np.packbits(seen.numpy(), axis=-1, bitorder="little")
    return packed.view(np.int64)[..., 0]
