"""Logits of the next tokens by PyTorch: the model's own modules, or where it can, a straight line of operations."""

from contextlib import suppress
from typing import Any

from torch import Tensor, nn

from formers.decode.prompt import Prompts, at_rest, last_logits, read
from formers.decode.straight import Straight
from formers.errors import NoRuleError
from formers.state import select


class Modules:
    """Some rows that a model has read, on its device."""

    def __init__(self, model: nn.Module, prompts: Prompts) -> None:
        self._model: Any = model
        self._prompts = prompts
        self._state: Any = None
        self._straight: Straight | None = None
        self._may_be_straight = True

    def begin(self) -> Tensor:
        """Read the prompts: the logits (B, V) of each row's first new token."""
        with at_rest(self._model):
            logits, self._state = read(self._model, self._prompts)
            return logits

    def read(self, tokens: Tensor) -> Tensor:
        """Read one token of each row, tokens (B, 1): the logits (B, V) of the next."""
        with at_rest(self._model):
            if self._straight is None and self._may_be_straight and len(tokens) == 1:
                self._may_be_straight = False
                with suppress(NoRuleError):
                    self._straight, self._state = Straight(self._model, self._state), None
            if self._straight is not None:
                return self._straight(tokens)
            reply = self._model.step(tokens, self._state, logits_at=slice(-1, None))
            self._state = reply.state
            return last_logits(reply)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows (N,) alone."""
        with at_rest(self._model):
            self._state = select(self._state, rows)
