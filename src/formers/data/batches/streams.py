"""Streams for models that carry a state: row r of a step goes on where row r of the step before it stopped."""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from formers.data.batches.windows import EvaluationBatch, as_ids, check_shape, ids_at
from formers.data.chance import below
from formers.errors import DataError

# Keeps the shifts apart from what else is drawn with this seed.
_SHIFT = (1 << 63) + 1


class Streams:
    """The text cut into `batch` equal parts, each read from its beginning to its end, `length` tokens a step.

    Batches are pure functions of the step. Neighbouring windows of a row share one token, the last target of one being
    the first input of the next. A pass ends when all rows have been read: the next one begins again, every row without
    a state, in the same order, since a stream can only be read forwards. What does not fill the last windows is left over,
    at a different place in every pass. Dai et al. 2019, arXiv:1901.02860, train so.

    tokens: a TokenFile or an array of ids. length: tokens that the model reads in a step; a window has one more, the last
    target. Raises DataError if the data does not give every row one window.
    """

    def __init__(self, tokens: npt.ArrayLike, length: int, batch: int, seed: int = 0) -> None:
        check_shape(length, batch)
        self._tokens = np.asarray(tokens)
        self.length, self.batch, self.seed = length, batch, seed
        targets = len(self._tokens) - 1
        self.steps_per_pass = targets // (batch * length)
        if self.steps_per_pass < 1:
            raise DataError(
                f"the data has {len(self._tokens)} tokens, but {batch} streams of at least one window of length={length} "
                f"need {batch * length + 1}; {_mend(targets, length)}"
            )
        self._slack = targets - batch * length * self.steps_per_pass

    def at(self, step: int) -> Tensor:
        """The batch of one step, counted from 0: (batch, length + 1), int64."""
        turn, place = divmod(step, self.steps_per_pass)
        shift = int(below(self._slack + 1, self.seed, _SHIFT, turn)[0])
        part = self.steps_per_pass * self.length
        first = shift + np.arange(self.batch) * part + place * self.length
        return as_ids(self._tokens[first[:, None] + np.arange(self.length + 1)])

    def continues(self, step: int) -> bool:
        """Whether the rows of a step go on from those of the step before it, or begin without a past."""
        return step % self.steps_per_pass != 0


class OrderedStreams:
    """Every token once, in order, for evaluating with a state: the text in `batch` parts of about equal length, which are
    read side by side, `length` tokens at a time.

    As in `Ordered`, neighbouring windows share one token, each token is a target exactly once, and `start` stands before the
    first. Each row goes on where it stopped; all but the first begin in the middle of the text, without a past. The
    last rows may end before the others: there the mask is False. Raises DataError if there is no token to predict.
    """

    def __init__(self, tokens: npt.ArrayLike, length: int, batch: int, *, start: int | None = None) -> None:
        check_shape(length, batch)
        self._tokens, self._start = np.asarray(tokens), start
        self.length = length
        self.targets = len(self._tokens) - (start is None)
        if self.targets < 1:
            raise DataError(f"{len(self._tokens)} tokens leave nothing to predict; evaluate on more text")
        self._part = math.ceil(self.targets / batch)
        self.batch = math.ceil(self.targets / self._part)

    def __len__(self) -> int:
        """How many windows each row has."""
        return math.ceil(self._part / self.length)

    def __iter__(self) -> Iterator[EvaluationBatch]:
        return (self.at(number) for number in range(len(self)))

    def at(self, number: int) -> EvaluationBatch:
        """Window `number` of every row; the last one may be shorter."""
        first = number * self.length
        inside = first + np.arange(min(self.length, self._part - first) + 1)
        places = np.arange(self.batch)[:, None] * self._part + inside
        return EvaluationBatch(ids_at(places, self._tokens, self._start), torch.from_numpy(places <= self.targets))


def _mend(targets: int, length: int) -> str:
    if targets >= length:
        return f"use batch={targets // length}, or more text"
    return f"use length={targets} and batch=1, or more text" if targets > 0 else "use more text"
