"""A small model that learns a task with one kind of layer after another, so that nothing but the layer can differ."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from formers.bench.trial import Trial
from formers.init import Init
from formers.train import AdamW, CosineDecay, TrainSpec
from formers.train.update import Updater


class AsTorch(Init):
    """Parameters begin as torch makes them: tokens of unit scale, and products by their number of inputs."""

    def apply(self, model: nn.Module, dim: int) -> None:
        """They are so already."""


class Pupil:
    """What the frozen dataclasses of such models inherit.

    task: a `Task` with `rows` in a batch and a `length`. steps: updates. rate: the learning rate at its peak, after a
    warm-up of 100 steps; it falls to 0 along half a cosine.
    """

    task: Any
    steps: int
    rate: float

    def spec(self, attention: Any) -> Any:
        """The model with that layer in every block, or with whatever else the task takes for one kind of attention."""
        raise NotImplementedError

    @property
    def optimizer(self) -> AdamW:
        """What it learns by."""
        return AdamW(self.rate)

    def learn_each(self, trial: Trial, learners: Mapping[str, Any]) -> Iterator[nn.Module]:
        """A trained model for each kind of attention, in turn, under one progress bar that tells its name."""
        with trial.progress("", self.steps * len(learners)) as tick:
            for name, attention in learners.items():
                tick(0, name)
                yield self.learn(attention, tick)

    def learn(self, attention: Any, tick: Callable[[], object], begin: nn.Module | None = None) -> nn.Module:
        """A trained model of that attention; the seed is always the same. `tick` is called after each step.

        begin: a model whose parameters it begins with, as far as it has those.
        """
        training = TrainSpec(
            self.steps, self.task.rows, self.task.length, optimizer=self.optimizer, schedule=CosineDecay(100, 0.0)
        )
        torch.manual_seed(training.seed)
        model = self.spec(attention).build().train()
        if begin is not None:
            model.load_state_dict(begin.state_dict(), strict=False)
        optimizer = training.optimizer.build(model)
        update = Updater(model, self.task, training, optimizer, torch.device("cpu"))
        for step in range(1, self.steps + 1):
            update(step)
            tick()
        return model.eval()
