"""Acting by a Decision Transformer: asking for what is still wanted, step by step."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from formers.control.decision.model import DecisionState
from formers.control.spaces import Choices
from formers.train.task import device_of


class Actor:
    """Acts in several episodes at once, which begin together, by the last `context` steps of each.

    wanted (B,): the return that each is asked for; what has been earned is taken off it. temperature: of the distribution
    that choices are drawn from; 0: the likeliest. seed: of those draws.

    Up to `context` steps the model goes on from its state, which gives what one pass gives. Beyond, the oldest step is to be
    forgotten, and the later ones must not know of it either: all that is kept are the steps, and the model reads the last
    `context` of them anew for each action, as it does in training. Raises ValueError beyond the model's horizon.
    """

    def __init__(self, model: Any, wanted: Tensor, *, temperature: float = 0.0, seed: int = 0) -> None:
        self._model, self._temperature = model, temperature
        self._place = device_of(model)
        self._chance = torch.Generator().manual_seed(seed)
        self._left = [wanted.to(self._place, torch.float32)]
        self._seen: list[Tensor] = []
        self._done: list[Tensor] = []
        self._state: DecisionState | None = None

    def act(self, observations: Tensor) -> Tensor:
        """The actions (B, W), or (B,) of choices, for observations (B, ...)."""
        self._seen.append(observations.to(self._place))
        with torch.no_grad():
            told = self._within() if len(self._seen) <= self._model.spec.context else self._beyond()
        action = self._chosen(told)
        self._done.append(action)
        return action.cpu()

    def earn(self, rewards: Tensor) -> None:
        """Take off what the actions earned, (B,)."""
        self._left.append(self._left[-1] - rewards.to(self._left[-1]))

    def _within(self) -> Tensor:
        """What the model tells of the newest step, (B, A), as its state goes on."""
        before = self._rows(self._done, 1) if self._done else self._none()
        at = torch.full_like(self._left[-1], len(self._seen) - 1, dtype=torch.int64)[:, None]
        out = self._model(self._left[-1][:, None], self._rows(self._seen, 1), before, at, self._state)
        self._state = out.state
        told: Tensor = out.actions[:, -1]
        return told

    def _beyond(self) -> Tensor:
        """The same by the last `context` steps alone."""
        self._state, context = None, self._model.spec.context
        first = len(self._seen) - context
        at = torch.arange(first, first + context, device=self._place).expand(len(self._left[0]), -1)
        done = self._rows(self._done, context - 1) if context > 1 else self._none()
        out = self._model(self._rows(self._left, context), self._rows(self._seen, context), done, at, remember=False)
        told: Tensor = out.actions[:, -1]
        return told

    def _rows(self, kept: Sequence[Tensor], count: int) -> Tensor:
        return torch.stack(list(kept[-count:]), 1)

    def _none(self) -> Tensor:
        space = self._model.spec.embedding.action
        return torch.zeros(len(self._left[0]), 0, *space.shape, dtype=space.dtype, device=self._place)

    def _chosen(self, told: Tensor) -> Tensor:
        if not isinstance(self._model.spec.embedding.action, Choices):
            return told
        if not self._temperature:
            return told.argmax(-1)
        share = torch.softmax(told.float() / self._temperature, -1).cpu()
        return share.multinomial(1, generator=self._chance)[:, 0].to(self._place)
