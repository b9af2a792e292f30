"""One update of the parameters: forward, backward, clip, step."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from formers.errors import ConfigError
from formers.state import handed_on
from formers.train.device import autocast, seed_generators, seed_of_step
from formers.train.learning import Lessons
from formers.train.processes import OneProcess
from formers.train.spec import TrainSpec
from formers.train.task import Batch, Loss, StreamTask, Task, pieces, to_device


@dataclass(frozen=True)
class Update:
    """What one update did. loss: nats per target, and norm: of the gradient before clipping, scalars on the device;
    named: the model's own losses, alike; tokens: that the model read."""

    step: int
    rate: float
    tokens: int
    loss: Tensor
    norm: Tensor
    named: dict[str, Tensor]


class Updater:
    """Updates a model, step by step; what a step does depends on nothing but parameters, optimiser, its number, and what
    it carries on from the step before.

    carried: the state of each piece of the batch after the latest step, for a `StreamTask`; None: there is none.
    processes: who else updates the same model; losses and norms are those of all of them together.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        spec: TrainSpec,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        carried: tuple[Any, ...] | None = None,
        processes: OneProcess = OneProcess(),
    ) -> None:
        self._forward = compiled(model) if spec.compile else model
        self._task, self._spec, self._optimizer, self._device = task, spec, optimizer, device
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._lessons, self._processes = Lessons(model), processes
        self.carried = carried

    def __call__(self, step: int) -> Update:
        """Do update `step`, counted from 1, without waiting for the device."""
        spec = self._spec
        rate = spec.optimizer.learning_rate * spec.schedule.factor(step, spec.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        tokens, losses = self._backward(step)
        self._processes.add_gradients(self._parameters)
        norm = self._processes.clip(self._parameters, spec.clip)
        self._optimizer.step()
        self._lessons.teach()
        self._optimizer.zero_grad()
        named = {name: total([loss.named[name] for loss in losses]) for name in losses[0].named}
        nats, *others = self._processes.sum([total([loss.nats for loss in losses]), *named.values()])
        return Update(step, rate, tokens, nats, norm, dict(zip(named, others, strict=True)))

    def _backward(self, step: int) -> tuple[int, list[Loss]]:
        """Add up the gradient of the batch; its losses are those of the pieces, each with the piece's share."""
        seed = seed_of_step(self._spec.seed, step)
        processes = self._processes
        seed_generators(self._device, processes.dropout_seed(seed))
        forward = functools.partial(self._forward, seed=seed)
        parts = pieces(self._task.batch(step), self._spec.accumulation)
        sizes = [self._task.size(part) for part in parts]
        targets = sum(size.targets for size in sizes)
        losses, after = [], []
        for part, own, past in zip(parts, processes.own(parts), self._pasts(step, len(parts)), strict=True):
            with processes.passing():
                with autocast(self._device, self._spec.precision):
                    loss = self._lost(forward, to_device(own, self._device), past)
                self._lessons.note(loss.records)
                weight, count = processes.share(own, part), len(parts)
                share = Loss(loss.nats / targets, {name: value * weight / count for name, value in loss.named.items()})
                objective = share.nats
                for value in share.named.values():
                    objective = objective + self._spec.auxiliary * value
                objective.backward()
            losses.append(Loss(share.nats.detach(), {name: value.detach() for name, value in share.named.items()}))
            after.append(handed_on(loss.state))
        self.carried = None if after[0] is None else tuple(after)
        return sum(size.tokens for size in sizes), losses

    def _pasts(self, step: int, count: int) -> tuple[Any, ...]:
        """What the rows of each piece go on from."""
        goes_on = isinstance(self._task, StreamTask) and self._task.continues(step)
        return self.carried if goes_on and self.carried is not None else (None,) * count

    def _lost(self, forward: Callable[..., Any], batch: Batch, past: Any) -> Loss:
        if past is None:
            return self._task.loss(forward, batch)
        return cast(StreamTask, self._task).loss(forward, batch, past)


def compiled(model: nn.Module) -> Callable[..., Any]:
    """The model's forward pass by torch.compile. It raises ConfigError, when first called, if it cannot be compiled."""
    from torch._dynamo.exc import TorchDynamoException

    forward = torch.compile(model)

    def checked(*arguments: Any, **named: Any) -> Any:
        try:
            return forward(*arguments, **named)
        except TorchDynamoException as error:
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(f"the model could not be compiled: {reason}; train with compile=False") from error

    return checked


def total(parts: list[Tensor]) -> Tensor:
    """The sum of a few scalars."""
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum()
