"""Documents packed end to end, every window once an epoch."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from formers.data.batches.windows import as_ids, windows_of
from formers.data.chance import below, shuffled

# Steps that are drawn together, for speed; the latest of them are remembered, which changes no batch.
_STRETCH = 256
# Keeps the shifts apart from the shuffles, which draw with the epoch as their first counter.
_SHIFT = 1 << 63


class Packed:
    """The whole stream of documents cut into windows, shuffled anew in every epoch, each used exactly once in it.

    Windows follow each other with one token in common, so every token is a target once an epoch. What does not fill a
    window is left over, at a different place in every epoch. A step may reach over the end of an epoch.
    `document_marks` tells the documents inside a window apart.

    tokens: a TokenFile or an array of ids. length: tokens that the model reads; a window has one more, the last target.
    Raises DataError if the data is shorter than one window.
    """

    def __init__(self, tokens: npt.ArrayLike, length: int, batch: int, seed: int = 0) -> None:
        self._windows = windows_of(tokens, length, batch)
        self.length, self.batch, self.seed = length, batch, seed
        self.windows = 1 + (len(self._windows) - 1) // length
        self._slack = (len(self._windows) - 1) % length
        self._latest: tuple[int, npt.NDArray[np.int64]] | None = None

    @property
    def steps_per_epoch(self) -> float:
        return self.windows / self.batch

    def at(self, step: int) -> Tensor:
        """The batch of one step: (batch, length + 1), int64."""
        stretch, place = divmod(step, _STRETCH)
        if self._latest is None or self._latest[0] != stretch:
            self._latest = stretch, self._starts(stretch)
        return as_ids(self._windows[self._latest[1][place]])

    def _starts(self, stretch: int) -> npt.NDArray[np.int64]:
        """Where the windows of _STRETCH steps begin: (_STRETCH, batch)."""
        turns = np.arange(stretch * _STRETCH * self.batch, (stretch + 1) * _STRETCH * self.batch)
        epochs, turns = np.divmod(turns, self.windows)
        chosen = shuffled(turns, self.windows, self.seed, key=epochs)
        shift = below(self._slack + 1, self.seed, _SHIFT, epochs)
        return (chosen * self.length + shift).reshape(_STRETCH, self.batch)


def document_marks(tokens: Tensor, end: int) -> dict[str, Tensor]:
    """Where documents lie in packed rows, for patterns that keep them apart and positions that restart.

    tokens (B, T), with the id `end` closing each document. Gives "document" (B, T), which counts from 0 in every row,
    and "position" (B, T), the place in the document, or in what the row holds of it. An end belongs to its document.
    """
    opens = torch.zeros_like(tokens)
    opens[:, 1:] = tokens[:, :-1] == end
    places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    first = torch.where(opens.bool(), places, torch.zeros_like(places)).cummax(dim=1).values
    return {"document": opens.cumsum(dim=1), "position": places - first}
