"""Tokens chosen by PyTorch, from logits of the model's own modules, or where it can, of a straight line of operations."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from formers.decode.prompt import Prompts, at_rest, last_logits, read
from formers.decode.sampling import Sampling, choose, uniforms
from formers.decode.straight import Straight
from formers.errors import NoRuleError
from formers.state import select


class Modules:
    """The rows that are still being written, on the model's device."""

    def __init__(self, model: nn.Module, prompts: Prompts, sampling: Sampling, seeds: Sequence[int]) -> None:
        """seeds: one for each row."""
        self._model: Any = model
        self._prompts, self._sampling = prompts, sampling
        self._tokens: Tensor | None = None  # until the prompts have been read
        self._state: Any = None
        self._straight: Straight | None = None
        self._may_be_straight = True
        steps = max(room for room, _ in prompts.budgets)
        written = prompts.written
        self._width, self._step = written.shape[1], 0
        self._uniforms = None if sampling.greedy else uniforms(seeds, steps, written.device)
        # Room for all that will be written, so that nothing is copied on the way.
        self._history = torch.cat([written, written[:, :1].expand(-1, steps)], 1) if sampling.looks_back else None

    def write(self) -> list[int]:
        """Read the prompts, or what each row was given last, and give it its next token."""
        with at_rest(self._model):
            chosen = self._choose(self._begin() if self._tokens is None else self._read(self._tokens))
            self._tokens = chosen[:, None]
            tokens: list[int] = chosen.tolist()
            return tokens

    def keep(self, places: list[int]) -> None:
        """Go on with these rows alone."""
        rows = torch.tensor(places, dtype=torch.int64, device=self._prompts.tokens.device)
        with at_rest(self._model):
            self._state = select(self._state, rows)
            self._tokens = None if self._tokens is None else self._tokens[rows]
            self._uniforms = None if self._uniforms is None else self._uniforms[rows]
            self._history = None if self._history is None else self._history[rows]

    def _begin(self) -> Tensor:
        logits, self._state = read(self._model, self._prompts)
        return logits

    def _read(self, tokens: Tensor) -> Tensor:
        """tokens (B, 1) -> the logits (B, V) of the next."""
        if self._straight is None and self._may_be_straight and len(tokens) == 1:
            self._may_be_straight = False
            with suppress(NoRuleError):
                self._straight, self._state = Straight(self._model, self._state), None
        if self._straight is not None:
            return self._straight(tokens)
        reply = self._model.step(tokens, self._state, logits_at=slice(-1, None))
        self._state = reply.state
        return last_logits(reply)

    def _choose(self, logits: Tensor) -> Tensor:
        uniform = None if self._uniforms is None else self._uniforms[:, self._step]
        history = None if self._history is None else self._history[:, : self._width + self._step]
        chosen = choose(logits, self._sampling, uniform, history)
        if self._history is not None:
            self._history[:, self._width + self._step] = chosen
        self._step += 1
        return chosen
