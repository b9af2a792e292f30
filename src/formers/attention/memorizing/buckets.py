"""The nearest of many keys, for one head of one row, without writing out the scores of all of them.

Keys are scored some at a time, and only the maximum of each bucket of neighbouring keys is kept; maxima are put into
buckets again. The n highest scores lie in the n buckets with the highest maxima: were one of them in another, those n
buckets would hold n scores that are higher. So from the widest buckets down to the keys only n have to be opened.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from formers.attention.memorizing.reach import Reach

FAN = 8  # keys in a bucket, and buckets in a wider one
LEVELS = 3
KEYS = 512  # scored at a time, so that their scores stay in the cache
QUERIES = 64  # whose candidates are scored at a time, so that they stay in the cache
UNIT = 2.0**-8  # the most that bfloat16 rounds off of a number, as a share of it
LOWEST = torch.iinfo(torch.int16).min  # of no key at all: the bits of -0.0, which no sum that began at 0 has


class Opened(NamedTuple):
    """The buckets whose keys are scored again: rows (T, n), those behind the last key among them where there are too few
    others; and the lowest of their maxima (T,), nan if it is not known."""

    rows: Tensor
    floor: Tensor


def nearest_by_buckets(q: Tensor, k: Tensor, count: int, reach: Reach | None, *, certain: bool) -> Tensor:
    """The slots (T, count) of the keys k (S, D) that score highest with q (T, D), all of length 1; -1 for none.

    reach: what may be retrieved, None: all. certain: look again, in full precision, where half of it was not enough.
    """
    k = k.contiguous()  # only a log that was never continued is not
    if q.dtype != torch.float64:
        q = q.float()
    if not screens(q):
        return _scored_again(q, k, _opened(q, k, count, reach), count, reach)[1]
    half = q.to(torch.bfloat16)
    opened = _opened(half, k, 2 * count, reach)
    scores, slots = _scored_again(q, k, opened, count, reach)
    if certain:
        last = scores.amin(1)  # -inf where fewer were found; then the floor must be so, too
        unsure = (~(_bound(q, half, opened.floor) <= last) & ~opened.floor.isneginf()).nonzero()[:, 0]
        if len(unsure):
            q, reach = q[unsure], None if reach is None else reach.of(unsure)
            slots[unsure] = _scored_again(q, k, _opened(q, k, count, reach), count, reach)[1]
    return slots


def screens(q: Tensor) -> bool:
    """Whether products in bfloat16 are much faster there than in the precision of the queries."""
    if q.dtype != torch.float32:
        return False
    return q.is_cuda or (q.device.type == "cpu" and torch.cpu._is_amx_tile_supported())


def _bound(q: Tensor, half: Tensor, floor: Tensor) -> Tensor:
    """The highest score that a key in no opened bucket can have: what rounding of the query, of the key and of the score
    can have taken away from it. By Cauchy and Schwarz, with keys of length 1."""
    rounded = half.to(q.dtype)
    error = (q - rounded).norm(dim=1) + UNIT * rounded.norm(dim=1)
    return floor * (1 + UNIT) + 1.01 * error


def _opened(q: Tensor, k: Tensor, count: int, reach: Reach | None) -> Opened:
    """The `count` buckets with the highest maxima, in the precision of q."""
    levels = [_maxima(q, k, reach)]
    for _ in range(LEVELS - 1):
        levels.append(levels[-1].view(-1, FAN, len(q)).amax(1))
    rows = torch.arange(len(levels[-1]), device=q.device).expand(len(q), -1)
    for level in reversed(levels):
        values = level.gather(0, rows.T).T.contiguous()
        top = values.topk(min(count, values.shape[1]), sorted=False)
        rows = rows.gather(1, top.indices)
        if level is not levels[0]:
            rows = (rows[..., None] * FAN + torch.arange(FAN, device=q.device)).flatten(1)
    return Opened(rows, _as_scores(top.values.amin(1)))


def _maxima(q: Tensor, k: Tensor, reach: Reach | None) -> Tensor:
    """The highest score in each bucket of keys, (N, T), with N a multiple of what all levels need.

    bfloat16 is compared by its bits: as whole numbers, those of positive numbers stand in their order and above those of
    negative ones. That is several times faster.
    """
    whole, as_bits = len(k) // FAN * FAN, q.dtype == torch.bfloat16
    step = FAN**LEVELS
    lowest = LOWEST if as_bits else float("-inf")
    kind = torch.int16 if as_bits else q.dtype
    maxima = torch.full((-(-whole // step) * step // FAN, len(q)), lowest, dtype=kind, device=q.device)
    room = torch.empty(min(KEYS, whole), len(q), dtype=q.dtype, device=q.device)
    for first in range(0, whole, KEYS):
        block = slice(first, min(first + KEYS, whole))
        seen = None if reach is None else reach.among(block)[0].T
        if seen is not None and not seen.any():
            continue
        scores = torch.mm(k[block].to(q.dtype), q.mT, out=room[: block.stop - first])
        told = scores.view(torch.int16) if as_bits else scores
        if seen is not None:
            told.masked_fill_(~seen, lowest)
        torch.amax(told.view(-1, FAN, len(q)), 1, out=maxima[first // FAN : block.stop // FAN])
    return maxima


def _as_scores(maxima: Tensor) -> Tensor:
    """Maxima as numbers. Of bits, those of a negative number: they are not in order, so nothing is known, nan."""
    if maxima.dtype != torch.int16:
        return maxima
    scores = maxima.view(torch.bfloat16).float().masked_fill(maxima < 0, float("nan"))
    return scores.masked_fill(maxima == LOWEST, float("-inf"))


def _scored_again(q: Tensor, k: Tensor, opened: Opened, count: int, reach: Reach | None) -> tuple[Tensor, Tensor]:
    """The highest scores (T, count) of the keys in the opened buckets and of those in none, and their slots."""
    whole = len(k) // FAN * FAN
    buckets = k[:whole].view(-1, FAN * k.shape[1])
    rest = torch.arange(whole, len(k), device=q.device)
    found = []
    for first in range(0, len(q), QUERIES):
        part = slice(first, first + QUERIES)
        asked, rows = q[part], opened.rows[part]
        inside = (rows[..., None] * FAN + torch.arange(FAN, device=q.device)).flatten(1)
        keys = buckets.index_select(0, rows.flatten().clamp(max=len(buckets) - 1)).view(len(rows), -1, k.shape[1])
        scores = torch.bmm(keys.to(q.dtype), asked[..., None])[..., 0].masked_fill_(inside >= whole, float("-inf"))
        scores = torch.cat([scores, asked @ k[whole:].to(q.dtype).mT], 1)
        slots = torch.cat([inside.clamp(max=whole - 1), rest.expand(len(rows), -1)], 1)
        if reach is not None:
            scores = scores.masked_fill_(~reach.of(part).at(slots), float("-inf"))
        top = scores.topk(count, sorted=False)
        found.append((top.values, slots.gather(1, top.indices).masked_fill_(top.values.isneginf(), -1)))
    return torch.cat([values for values, _ in found]), torch.cat([slots for _, slots in found])
