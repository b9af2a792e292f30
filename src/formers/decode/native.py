"""Logits of the next tokens by the native engine: every row is a stream of its own, without padding."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from formers.decode.prompt import Prompts, at_rest, refuse_not_finite
from formers.native.engine.encoded import give_encoded
from formers.native.engine.program import Program
from formers.native.engine.run import Engine


class Native:
    """Some rows that a program has read."""

    def __init__(self, model: nn.Module, prompts: Prompts, program: Program) -> None:
        """program: of this model, or of its target side; its encoder, if it has one, is run by PyTorch."""
        self._model: Any = model
        self._prompts = prompts
        self._live = list(range(len(prompts.tokens)))
        self._session = Engine(program).session(len(self._live))

    def begin(self) -> Tensor:
        """Read the prompts: the logits (B, V) of each row's first new token."""
        if self._prompts.reads_source:
            with at_rest(self._model):
                encoded = self._model.start(self._prompts.tokens, source_mask=self._prompts.mask).encoded
                give_encoded(self._session, self._model, encoded)
        rows = _unpadded(self._prompts)
        streams = np.repeat(self._live, [len(row) for row in rows])
        ends = np.append(streams[1:] != streams[:-1], True)
        logits = self._read(np.concatenate(rows), streams, ends)
        refuse_not_finite(logits)
        return logits

    def read(self, tokens: Tensor) -> Tensor:
        """Read one token of each row, tokens (B, 1): the logits (B, V) of the next."""
        return self._read(tokens[:, 0].cpu().numpy(), self._live, None)

    def _read(self, tokens: np.ndarray, streams: Any, wanted: np.ndarray | None) -> Tensor:
        return torch.from_numpy(self._session.step(tokens, streams, wanted)).to(self._prompts.tokens.device)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows (N,) alone."""
        kept = [self._live[row] for row in rows.tolist()]
        for stream in set(self._live) - set(kept):
            self._session.reset(stream)
        self._live = kept


def _unpadded(prompts: Prompts) -> list[np.ndarray]:
    """What stands before each row's first new token."""
    if prompts.reads_source or prompts.mask is None:
        return list(prompts.written.cpu().numpy())
    rows = zip(prompts.tokens.cpu(), prompts.mask.cpu(), strict=True)
    return [row[real].numpy() for row, real in rows]
