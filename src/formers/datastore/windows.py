"""A text read through a model in windows that overlap, so that every token is seen with a long context before it."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.data.tokens import Ids
from formers.datastore.keys import Tap
from formers.errors import DataError
from formers.train.task import device_of


class Piece(NamedTuple):
    """Some tokens of a text that follow one another. first: the number of the first among all that are predicted.

    keys (n, M) float, of the context before each token; tokens (n,) int64; nats (n,), what the model loses on each, or
    None where nobody asked.
    """

    first: int
    keys: Tensor
    tokens: Tensor
    nats: Tensor | None


class Reading:
    """Every token of a text with a context of at least `overlap` tokens before it, but for those at its beginning.

    tokens: of the text. start: the id that stands before the first token (the end id of a text, say); where there is none,
    the first token is not predicted. length: tokens that are read at a time; each window begins length - overlap behind
    the one before it, and only what is new in it counts. rows: windows that are read side by side.

    Raises DataError for a text without a token to predict, and where nothing would be new in a window.
    """

    def __init__(
        self, model: nn.Module, tokens: Ids, *, start: int | None, length: int, overlap: int, rows: int = 8
    ) -> None:
        if not 0 <= overlap < length or rows < 1:
            raise DataError(f"windows of {length} tokens that share {overlap} tell nothing new: share fewer")
        self.model, self._tokens, self._start = model, np.asarray(tokens), start
        self.length, self.overlap, self.rows = length, overlap, rows
        self.count = len(self._tokens) - (start is None)
        if self.count < 1:
            raise DataError(f"{len(self._tokens)} tokens leave nothing to predict; give more text")
        self._windows = 1 + math.ceil(max(0, self.count - length) / (length - overlap))

    @property
    def predicted(self) -> Ids:
        """The tokens that are predicted, in order: (count,)."""
        return self._tokens[len(self._tokens) - self.count :]

    def pieces(self, after: int = 0, *, scored: bool = False) -> Iterator[Piece]:
        """All pieces from token number `after` on, which must be where one begins. scored: the model's losses too."""
        first = self._batch_at(after)
        with Tap(self.model).open() as tap:
            for begin in range(first, self._windows, self.rows):
                yield self._read(tap, range(begin, min(begin + self.rows, self._windows)), scored)

    def _batch_at(self, after: int) -> int:
        """The window that the piece which begins at a token begins with. Raises DataError if there is none."""
        step = self.length - self.overlap
        window = 0 if after == 0 else (after - self.overlap) // step
        if after not in (self.count, self._begin(window)) or (after < self.count and window % self.rows):
            raise DataError(f"no piece begins at token {after} when {self.rows} windows of {self.length} are read")
        return self._windows if after == self.count else window

    def _begin(self, window: int) -> int:
        """The first token that is new in a window."""
        return 0 if window == 0 else window * (self.length - self.overlap) + self.overlap

    def _read(self, tap: Tap, windows: range, scored: bool) -> Piece:
        step, stop = self.length - self.overlap, min(self._begin(windows[-1] + 1), self.count)
        places = np.array(windows)[:, None] * step + np.arange(min(self.length, self.count))
        real = places < self.count
        new = real & (places >= np.array([self._begin(window) for window in windows])[:, None])
        device = device_of(self.model)
        inputs, mask, wanted = (torch.from_numpy(part).to(device) for part in (self._inputs(places), real, new))
        with torch.inference_mode():
            given: Any = {} if real.all() else {"mask": mask}
            out = self.model(inputs, **given, logits_at=wanted if scored else None, remember=False)
            keys = tap.take(out)[wanted].float().cpu()
        tokens = torch.from_numpy(self.predicted[self._begin(windows[0]) : stop].astype(np.int64))
        nats = F.cross_entropy(out.logits.float().cpu(), tokens, reduction="none") if scored else None
        return Piece(self._begin(windows[0]), keys, tokens, nats)

    def _inputs(self, places: "np.ndarray[Any, np.dtype[np.int64]]") -> "np.ndarray[Any, np.dtype[np.int64]]":
        """The ids that stand before the predicted tokens at these places."""
        before = self._start is not None
        ids = self._tokens[np.clip(places - before, 0, len(self._tokens) - 1)].astype(np.int64)
        if self._start is not None:
            ids[places == 0] = self._start
        return ids
