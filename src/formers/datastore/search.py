"""Exact search: every key is looked at, block by block over the memory map."""

import torch
from torch import Tensor

from formers.datastore.found import Found
from formers.datastore.store import Datastore
from formers.errors import DataError

BLOCK = 1 << 25  # bytes of fp32 keys that are mapped at a time
SCORES = 1 << 24  # distances that exist at a time
GROUP = 16  # distances of a row that are looked at together, a power of 2
ROWS = 1 << 24  # numbers of keys that are read again at a time, to measure exactly


def exact(store: Datastore, queries: Tensor, k: int, own: Tensor | None = None) -> Found:
    """The k nearest entries of each query (Q, dim) by squared distance.

    own: (Q,) int64, an entry that each query must not find, its own, or -1. One product of matrices a block ranks the
    keys; the distances of those that remain are then measured once more, difference by difference, since the product
    loses digits where keys are long and near.
    """
    queries = checked(store, queries, k)
    at_once = max(1, SCORES // max(1, min(store.count, BLOCK // (4 * store.dim))))
    parts = [slice(first, first + at_once) for first in range(0, len(queries), at_once)]
    ranked = _ranked(
        store, [queries[part] for part in parts], k, [None if own is None else own[part] for part in parts]
    )
    return measured(store, queries, torch.cat(ranked), k)


def checked(store: Datastore, queries: Tensor, k: int) -> Tensor:
    """The queries in fp32. Raises DataError for those of another dimension, and for a k below 1."""
    if queries.dim() != 2 or queries.shape[1] != store.dim:
        raise DataError(f"queries {tuple(queries.shape)} do not fit keys of {store.dim} numbers: give (Q, {store.dim})")
    if k < 1:
        raise DataError(f"{k} neighbours tell nothing; ask for at least 1")
    return queries.float()


def measured(store: Datastore, queries: Tensor, entries: Tensor, k: int) -> Found:
    """The k nearest of some entries (Q, n) of each query, -1 for none, by distances that are worked out anew."""
    count, n = entries.shape
    far = queries.new_full((count, n), float("inf"))
    at_once = max(1, ROWS // (store.dim * max(1, n)))
    for first in range(0, count, at_once):
        part = entries[first : first + at_once]
        keys = store.keys_at(part.clamp(min=0).flatten()).view(len(part), n, -1)
        far[first : first + at_once] = (keys - queries[first : first + at_once, None]).square().sum(-1)
    far = far.masked_fill(entries < 0, float("inf"))
    if n < k:
        far = torch.nn.functional.pad(far, (0, k - n), value=float("inf"))
        entries = torch.nn.functional.pad(entries, (0, k - n), value=-1)
    order = far.sort(dim=1, stable=True)
    return Found(order.values[:, :k], entries.gather(1, order.indices)[:, :k])


def _ranked(store: Datastore, queries: list[Tensor], k: int, own: list[Tensor | None]) -> list[Tensor]:
    """The entries (Q, <= k) of the k lowest scores |key|² - 2 query · key, for each part of the queries."""
    best = [(part.new_empty(len(part), 0), torch.empty(len(part), 0, dtype=torch.int64)) for part in queries]
    step = max(1, BLOCK // (4 * store.dim) // GROUP * GROUP)
    for first in range(0, store.count, step):
        keys = store.keys(first, min(first + step, store.count))
        norms = torch.linalg.vecdot(keys, keys)
        for number, part in enumerate(queries):
            scores = torch.addmm(norms, part, keys.T, alpha=-2)
            _forbid(scores, own[number], first)
            best[number] = _merged(*best[number], scores, first, k)
    return [torch.where(scores.isfinite(), entries, -1) for scores, entries in best]


def _forbid(scores: Tensor, own: Tensor | None, first: int) -> None:
    if own is not None:
        here = (own >= first) & (own < first + scores.shape[1])
        scores[here, own[here] - first] = float("inf")


def _merged(scores: Tensor, entries: Tensor, more: Tensor, first: int, k: int) -> tuple[Tensor, Tensor]:
    """The k best of those before and those of a block that begins at entry `first`."""
    values, places = _lowest(more, min(k, more.shape[1]))
    scores, entries = torch.cat([scores, values], 1), torch.cat([entries, places + first], 1)
    if scores.shape[1] <= k:
        return scores, entries
    kept = scores.topk(k, dim=1, largest=False, sorted=False)
    return kept.values, entries.gather(1, kept.indices)


def _lowest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k lowest of each row (Q, n), and where they are, in any order.

    They stand in the k groups whose lowest numbers are lowest, and to find those first reads most numbers once only.
    """
    n = scores.shape[1]
    if n % GROUP or n < 2 * k * GROUP:
        plain = scores.topk(k, dim=1, largest=False, sorted=False)
        return plain.values, plain.indices
    groups = scores.view(len(scores), GROUP, -1).amin(1).topk(k, dim=1, largest=False, sorted=False).indices
    among = (groups[:, None] + torch.arange(0, n, n // GROUP)[:, None]).flatten(1)
    found = scores.gather(1, among).topk(k, dim=1, largest=False, sorted=False)
    return found.values, among.gather(1, found.indices)
