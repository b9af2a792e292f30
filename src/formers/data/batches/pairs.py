"""Batches of sentence pairs for an encoder-decoder: alike in length, about equal in tokens."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from formers.data.chance import mix, shuffled
from formers.errors import DataError

Whole = npt.NDArray[np.int64]

# Pairs whose longer sides differ by less than this share one bucket: inside it they are shuffled freely.
_BUCKET = 2


class PairBatch(NamedTuple):
    """What one step of translation training needs; masks are True where a token is real, padding is on the right.

    source (B, S) and source_mask (B, S); inputs (B, T): start, then the target; targets (B, T): the target, then end;
    mask (B, T), of both.
    """

    source: Tensor
    source_mask: Tensor
    inputs: Tensor
    targets: Tensor
    mask: Tensor


class PairBatches:
    """Pairs in batches of at most `tokens_per_batch` tokens on either side, padding counted (Vaswani et al. 2017, 5.1).

    Pairs are sorted into buckets by their longer side, shuffled inside each, and cut into batches, which are shuffled
    too. Every epoch cuts at the same places, so it has the same number of batches, `len(self)`, and every pair is in
    one of them.

    pairs: ids of source and target, which are taken as they are; start and end are put around the target alone. pad
    fills up; with the masks at hand it may be any id. Raises DataError if there is no pair, if a source is empty, or
    if a pair is longer than a batch.
    """

    def __init__(
        self,
        pairs: Iterable[tuple[Sequence[int], Sequence[int]]],
        tokens_per_batch: int,
        *,
        start: int,
        end: int,
        pad: int,
        seed: int = 0,
    ) -> None:
        sources, targets = [], []
        for source, target in pairs:
            sources.append(source)
            targets.append(target)
        self._sources, self._targets = _Ragged(sources), _Ragged(targets)
        self.start, self.end, self.pad, self.seed = start, end, pad, seed
        # The target side has one token more than the target: its start, or its end.
        longer = np.maximum(self._sources.lengths, self._targets.lengths + 1)
        _check(self._sources.lengths, longer, tokens_per_batch)
        self._bucket = -(-longer // _BUCKET)
        self._cuts = _cut(np.sort(np.minimum(self._bucket * _BUCKET, tokens_per_batch)), tokens_per_batch)
        self._latest: tuple[int, Whole, Whole] | None = None

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return len(self._cuts) - 1

    def at(self, step: int) -> PairBatch:
        """The batch of one step."""
        epoch, turn = divmod(step, len(self))
        order, numbers = self._plan(epoch)
        number = int(numbers[turn])
        rows = order[self._cuts[number] : self._cuts[number + 1]]
        source, source_mask = self._sources.rows(rows, self.pad)
        target, real = self._targets.rows(rows, self.pad)
        return _batch(source, source_mask, target, real, self.start, self.end, self.pad)

    def _plan(self, epoch: int) -> tuple[Whole, Whole]:
        """The pairs of an epoch by bucket, by chance inside it, and the order of its batches; the latest is kept."""
        if self._latest is None or self._latest[0] != epoch:
            chance = mix(self.seed, epoch, np.arange(len(self._bucket)))
            order = np.lexsort((chance, self._bucket))
            self._latest = epoch, order, shuffled(np.arange(len(self)), len(self), self.seed, key=epoch)
        return self._latest[1:]


class _Ragged:
    """Rows of unequal length in one flat array."""

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self.lengths = np.array([len(row) for row in rows], dtype=np.int64)
        self._first = np.concatenate([[0], np.cumsum(self.lengths)])
        self._flat = np.fromiter((token for row in rows for token in row), dtype=np.int64, count=int(self._first[-1]))

    def rows(self, chosen: Whole, pad: int) -> tuple[Whole, npt.NDArray[np.bool_]]:
        """Some rows, padded on the right to the longest of them, and where they are real."""
        lengths = self.lengths[chosen]
        real = np.arange(lengths.max()) < lengths[:, None]
        padded = np.full(real.shape, pad, dtype=np.int64)
        padded[real] = self._flat[(self._first[chosen, None] + np.arange(lengths.max()))[real]]
        return padded, real


def _batch(
    source: Whole, source_mask: npt.NDArray[np.bool_], target: Whole, real: npt.NDArray[np.bool_], *ids: int
) -> PairBatch:
    start, end, pad = ids
    rows = len(target)
    inputs = np.concatenate([np.full((rows, 1), start), target], axis=1)
    targets = np.concatenate([target, np.full((rows, 1), pad)], axis=1)
    targets[np.arange(rows), real.sum(axis=1)] = end
    mask = np.concatenate([np.ones((rows, 1), dtype=bool), real], axis=1)
    return PairBatch(*map(torch.from_numpy, (source, source_mask, inputs, targets, mask)))


def _cut(bounds: Whole, tokens_per_batch: int) -> list[int]:
    """Where batches begin in pairs sorted by bound, each taking as many rows as fit: rows x bound <= tokens_per_batch.

    It looks at bounds only, which are the same in every epoch, so the cuts are too.
    """
    cuts = [0]
    while cuts[-1] < len(bounds):
        first = cuts[-1]
        rows = np.arange(1, min(tokens_per_batch, len(bounds) - first) + 1)
        fits = rows * bounds[first : first + len(rows)] <= tokens_per_batch
        cuts.append(first + int(fits.sum()))
    return cuts


def _check(sources: Whole, longer: Whole, tokens_per_batch: int) -> None:
    if not len(sources):
        raise DataError("there are no pairs to make batches of; give aligned text")
    if not sources.all():
        raise DataError(f"the source of pair {int(sources.argmin())} (from 0) is empty; leave such pairs out")
    if longer.max() > tokens_per_batch:
        raise DataError(
            f"pair {int(longer.argmax())} (from 0) has {longer.max()} tokens on its longer side, more than "
            f"tokens_per_batch={tokens_per_batch}; leave long pairs out, or use a larger batch"
        )
