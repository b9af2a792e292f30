"""Windows of a stream of tokens: at random for training, all of them in order for evaluation."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from formers.data.chance import below
from formers.errors import DataError


class RandomWindows:
    """Windows that start anywhere, drawn anew for every step: nanoGPT's way.

    tokens: a TokenFile or an array of ids. length: tokens that the model reads; a window has one more, the last target.
    Raises DataError if the data is shorter than one window.
    """

    def __init__(self, tokens: npt.ArrayLike, length: int, batch: int, seed: int = 0) -> None:
        self._windows = windows_of(tokens, length, batch)
        self.length, self.batch, self.seed = length, batch, seed

    def at(self, step: int) -> Tensor:
        """The batch of one step: (batch, length + 1), int64."""
        rows = step * self.batch + np.arange(self.batch)
        return as_ids(self._windows[below(len(self._windows), self.seed, rows)])


class EvaluationBatch(NamedTuple):
    """tokens (B, length + 1), int64; mask of the same shape, True where a token is real and not filling."""

    tokens: Tensor
    mask: Tensor


class Ordered:
    """Every token once, in order, for evaluation; reading tokens[:, :-1], the targets that count are mask[:, 1:].

    Neighbouring windows share one token, the last target of one being the first input of the next, so each token is a
    target exactly once. The first token of all has nothing before it, unless `start` (the end id of a text, say) is
    given to stand there: with it bits per byte count every byte. The last batch may have fewer rows.
    Raises DataError if there is no token to predict.
    """

    def __init__(self, tokens: npt.ArrayLike, length: int, batch: int, *, start: int | None = None) -> None:
        check_shape(length, batch)
        self._tokens = np.asarray(tokens)
        self._start = start
        self.length, self.batch = length, batch
        self.targets = len(self._tokens) - (start is None)
        if self.targets < 1:
            raise DataError(f"{len(self._tokens)} tokens leave nothing to predict; evaluate on more text")
        self._rows = math.ceil(self.targets / length)

    def __len__(self) -> int:
        """How many batches there are."""
        return math.ceil(self._rows / self.batch)

    def __iter__(self) -> Iterator[EvaluationBatch]:
        return (self.at(number) for number in range(len(self)))

    def at(self, number: int) -> EvaluationBatch:
        """Batch `number`, from 0 to len(self) - 1."""
        rows = np.arange(number * self.batch, min((number + 1) * self.batch, self._rows))
        # Places in the stream of inputs and targets, in which `start` comes first where there is one.
        places = rows[:, None] * self.length + np.arange(self.length + 1)
        real = places <= self.targets
        return EvaluationBatch(ids_at(places, self._tokens, self._start), torch.from_numpy(real))


def ids_at(places: npt.NDArray[np.int64], tokens: npt.NDArray[np.integer[Any]], start: int | None) -> Tensor:
    """The ids at places of a text in front of which `start` stands, if there is one; past the end, any."""
    before = start is not None
    ids = tokens[np.clip(places - before, 0, len(tokens) - 1)].astype(np.int64)
    if start is not None:
        ids[places == 0] = start
    return torch.from_numpy(ids)


def windows_of(tokens: npt.ArrayLike, length: int, batch: int) -> npt.NDArray[np.integer[Any]]:
    """Every window of length + 1 tokens as a row of one view, nothing copied; raises DataError if there is none."""
    check_shape(length, batch)
    stream = np.asarray(tokens)
    if len(stream) <= length:
        mend = f"use length={len(stream) - 1} or less, or more text" if len(stream) > 1 else "use more text"
        raise DataError(
            f"the data has {len(stream)} tokens, but one window of length={length} needs {length + 1} "
            f"(the last is a target only); {mend}"
        )
    return np.lib.stride_tricks.sliding_window_view(stream, length + 1)


def check_shape(length: int, batch: int) -> None:
    """Raise DataError unless both are at least 1."""
    if length < 1 or batch < 1:
        raise DataError(f"length={length} and batch={batch} must both be at least 1")


def as_ids(rows: npt.NDArray[np.integer[Any]]) -> Tensor:
    """Rows of ids as the int64 that embeddings take."""
    return torch.from_numpy(rows.astype(np.int64))
