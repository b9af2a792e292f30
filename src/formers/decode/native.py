"""Tokens chosen by the native engine: every row is a stream of its own, without padding."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from formers.decode.prompt import Prompts, at_rest
from formers.decode.sampling import Sampling
from formers.native.engine.encoded import give_encoded
from formers.native.engine.program import Program
from formers.native.engine.run import Engine


class Native:
    """The rows that are still being written."""

    def __init__(
        self, model: nn.Module, prompts: Prompts, program: Program, sampling: Sampling, seeds: Sequence[int]
    ) -> None:
        """program: of this model, or of its target side; its encoder, if it has one, is run by PyTorch. seeds: one for
        each row."""
        self._model: Any = model
        self._prompts, self._sampling, self._seeds = prompts, sampling, seeds
        self._live = list(range(len(prompts.tokens)))
        self._session = Engine(program).session(len(self._live))
        self._last: list[int] = []  # that each row was given, until then none
        self._step = 0

    def write(self) -> list[int]:
        """Read the prompts, or what each row was given last, and give it its next token."""
        tokens, streams = (self._last, self._live) if self._last else self._begin()
        seeds = [self._seeds[row] for row in self._live]
        written = self._session.write(tokens, streams, count=1, sampling=self._sampling, seeds=seeds, drawn=self._step)
        self._step += 1
        self._last = [token for (token,) in written]
        return self._last

    def keep(self, places: list[int]) -> None:
        """Go on with these rows alone."""
        kept = [self._live[place] for place in places]
        for stream in set(self._live) - set(kept):
            self._session.reset(stream)
        self._live, self._last = kept, [self._last[place] for place in places]

    def _begin(self) -> tuple[np.ndarray, np.ndarray]:
        """All tokens of the prompts, and the stream of each."""
        if self._prompts.reads_source:
            with at_rest(self._model):
                encoded = self._model.start(self._prompts.tokens, source_mask=self._prompts.mask).encoded
                give_encoded(self._session, self._model, encoded)
        rows = _unpadded(self._prompts)
        return np.concatenate(rows), np.repeat(self._live, [len(row) for row in rows])


def _unpadded(prompts: Prompts) -> list[np.ndarray]:
    """What stands before each row's first new token."""
    if prompts.reads_source or prompts.mask is None:
        return list(prompts.written.cpu().numpy())
    rows = zip(prompts.tokens.cpu(), prompts.mask.cpu(), strict=True)
    return [row[real].numpy() for row, real in rows]
