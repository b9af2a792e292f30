"""Planning visits: which blocks of keys the blocks of queries see, in whole or in part, for any pattern over places.

A pair of blocks is left out where the pattern surely shows nothing of it, taken whole where it surely shows all, and else
looked at pair by pair. So a plan is exact, and whoever runs it needs to know nothing of patterns.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from formers.attention.pattern import Pattern
from formers.attention.span import BlockSpans
from formers.attention.visits.terms import Term, order_of, terms_of
from formers.cached import cached
from formers.native.visits import BLOCK, View
from formers.places import Spots

PAIRS = 1 << 22  # of blocks that are bounded together: at a million tokens all of them would fill gigabytes
ROWS = 64  # blocks of queries that are bounded together where all keys are near
PLACES, WORTH = (16, 64, 256), 1.2  # 16 are half of a megabyte where heads are 64 wide, with gradients a whole one
PIECE = 256  # partly seen blocks that are looked at together: some megabytes at a time
HEAD = torch.zeros(1, 1, 1, dtype=torch.int64)  # patterns of one head do not ask for it


class HeadPlan(NamedTuple):
    """What one head of a row visits. places: how many blocks of keys a thread had best hold. pairs: how many are seen."""

    views: tuple[View, ...]
    places: int
    pairs: int

    def moved(self, queries: Tensor, keys: Tensor) -> "HeadPlan":
        """The same plan for tokens that stand elsewhere: token i is now queries[i] or keys[i], int32."""
        told = (view._replace(queries=_told(queries, view.queries), keys=_told(keys, view.keys)) for view in self.views)
        return self._replace(views=tuple(told))


@cached(512)  # twelve layers of twelve heads that each draw blocks of their own are 144
def plan_run(pattern: Pattern, start: int, length: int, first: int, count: int) -> HeadPlan:
    """The plan of `length` queries from position `start` on and `count` keys from `first` on, for one head's pattern."""
    at, to = (Spots(torch.arange(begin, begin + size), {}) for begin, size in ((start, length), (first, count)))
    return plan_spots(pattern, at, to)


def plan_spots(pattern: Pattern, at: Spots, to: Spots) -> HeadPlan:
    """The plan of queries and keys at these places, one number each (T,) and (S,), for one head's pattern."""
    views = (_view(term, at, to) for term in terms_of(pattern, at, to))
    kept = tuple(view for view in views if len(view.visited))
    return HeadPlan(kept, max(map(places_of, kept), default=1), sum(map(_pairs, kept)))


def _pairs(view: View) -> int:
    """How many pairs its visits show."""
    queries, keys = ((blocks >= 0).sum(1) for blocks in (view.queries, view.keys))
    block = torch.repeat_interleave(torch.arange(len(queries)), view.first.diff())
    whole, partly = view.mask == -1, view.mask[view.mask >= 0].long()
    bits = torch.from_numpy(np.unpackbits(view.masks.numpy().view(np.uint8), axis=-1)).sum(1, dtype=torch.int64)
    return int((queries[block] * keys[view.visited.long()])[whole].sum() + bits[partly].sum())


def places_of(view: View) -> int:
    """How many blocks of keys a thread should hold, block n in place n % places: as few as are gathered hardly more often
    than with the most, for those that are held want to stay in the cache."""
    visited = view.visited.numpy()
    gathered = {places: _gathered(visited, places) for places in PLACES}
    return next(places for places, times in gathered.items() if times <= WORTH * gathered[PLACES[-1]])


def _gathered(visited: "np.ndarray[tuple[int], np.dtype[np.int32]]", places: int) -> int:
    """How often a block comes to its place, in the order of the visits."""
    order = np.argsort(visited % places, kind="stable")
    return 1 + int(np.count_nonzero(np.diff(visited[order])))


def _told(tokens: Tensor, blocks: Tensor) -> Tensor:
    return torch.where(blocks < 0, blocks, tokens[blocks.clamp(min=0).long()])


def _view(term: Term, at: Spots, to: Spots) -> View:
    rows, columns = (
        _blocks(at, order_of(term.queries, at, queries=True)),
        _blocks(to, order_of(term.keys, to, queries=False)),
    )
    block, visited, whole = _touched(term, _Side(at, rows), _Side(to, columns))
    partly = ~whole
    mask = torch.full(block.shape, -1, dtype=torch.int32)
    masks, mask[partly] = _masks(term, at, to, rows[block[partly]], columns[visited[partly]])
    kept = mask > -2
    block, visited, mask = block[kept], visited[kept], mask[kept]
    first = torch.zeros(len(rows) + 1, dtype=torch.int32)
    first[1:] = torch.bincount(block, minlength=len(rows)).cumsum(0)
    return View(rows.int(), columns.int(), first, visited.int(), mask, masks)


class _Side(NamedTuple):
    """Places, and the tokens of their blocks (N, 64)."""

    spots: Spots
    blocks: Tensor

    def spans(self, axis: int, part: slice = slice(None)) -> BlockSpans:
        """What some of the blocks span."""
        blocks = self.blocks[part]
        return BlockSpans(_at(self.spots, blocks).each(lambda t: t[None]), (blocks >= 0)[None], axis)


def _touched(term: Term, rows: _Side, columns: _Side) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of blocks of which anything may be seen: the block of queries, that of keys, and whether all of it is."""
    keys, found = columns.spans(0), []
    step = ROWS if _is_band(term) else max(1, PAIRS // max(1, len(columns.blocks)))
    for start in range(0, len(rows.blocks), step):
        queries = rows.spans(1, slice(start, start + step))
        near = _band(term, queries, keys)
        block, visited, whole = _bounded(term, queries, columns.spans(0, near))
        found.append((block + start, visited + near.start, whole))
    block, visited, whole = (torch.cat(each) for each in zip(*found, strict=True))
    return block, visited, whole


def _bounded(term: Term, queries: BlockSpans, keys: BlockSpans) -> tuple[Tensor, Tensor, Tensor]:
    touched = term.pattern.reaches(queries, keys) & ~queries.empty & ~keys.empty
    whole = torch.as_tensor(term.pattern.covers(queries, keys)) & touched
    if term.earlier is not None:
        whole = whole & ~term.earlier.reaches(queries, keys)
    block, visited = touched.nonzero(as_tuple=True)
    return block, visited, whole[block, visited]


def _is_band(term: Term) -> bool:
    """Whether queries see none but keys near before them, and both are in order: then most blocks need no look at all."""
    pattern = term.pattern
    return term.queries is None and term.keys is None and pattern.causal and pattern.horizon is not None


def _band(term: Term, queries: BlockSpans, keys: BlockSpans) -> slice:
    """The blocks of keys that any of these queries may see."""
    if not _is_band(term):
        return slice(0, keys.lo.shape[1])
    back = int(queries.lo.min()) - (term.pattern.horizon or 0)
    first = torch.searchsorted(keys.hi[0], back, right=True)
    last = torch.searchsorted(keys.lo[0], int(queries.hi.max()), right=True)
    return slice(int(first), int(last))


def _blocks(spots: Spots, order: Tensor | None) -> Tensor:
    """The tokens of each block (N, 64), -1 behind the last."""
    length = len(spots.pos)
    tokens = torch.arange(length) if order is None else order.argsort(stable=True)
    return torch.nn.functional.pad(tokens, (0, -length % BLOCK), value=-1).view(-1, BLOCK)


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
