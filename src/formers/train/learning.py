"""Modules that learn from what they saw by a rule of their own, beside what the optimiser does by gradients.

No forward call changes a module. So a pass returns what such a module must learn from as a record, and after the
optimiser's step the updater hands it back, summed over all that the update saw.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class Learner(Protocol):
    """A module that learns. lesson: the name of its record, which no other module of the model uses.

    In training every pass through it adds one tensor to that record; those of several passes add up.
    """

    lesson: str

    def learn(self, seen: Tensor) -> None:
        """Change the module by all that one update saw."""


class Lessons:
    """What one update teaches the learners of a model."""

    def __init__(self, model: nn.Module) -> None:
        self._learners = [module for module in model.modules() if isinstance(module, Learner)]
        self._seen: dict[str, Tensor] = {}

    def note(self, records: Mapping[str, tuple[Tensor, ...]]) -> None:
        """Add what one piece of the batch showed. Names may have grown in front, as in an encoder-decoder."""
        for learner in self._learners:
            told = [part for name, parts in records.items() if name.endswith(learner.lesson) for part in parts]
            before = self._seen.get(learner.lesson)
            if told:
                self._seen[learner.lesson] = _sum([*told, *([] if before is None else [before])])

    def teach(self) -> None:
        """Let every learner learn from what was noted, on all processes together."""
        for learner in self._learners:
            seen = self._seen.pop(learner.lesson, None)
            if seen is None:
                continue
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.all_reduce(seen)
            learner.learn(seen)


def _sum(parts: Iterable[Tensor]) -> Tensor:
    return torch.stack([part.detach() for part in parts]).sum(0)
