"""What a training loop asks of a task."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from formers.spec import Spec

# Tensors by name; the first axis of each counts rows, so that a batch can be cut into pieces.
Batch = dict[str, Tensor]

# Told how much of something is done, from 0 to 1.
Tick = Callable[[float], None]


class Size(NamedTuple):
    """How large a batch is: real tokens that the model reads, and targets that it must predict."""

    tokens: int
    targets: int


class Loss(NamedTuple):
    """nats: a scalar, summed over the targets of a batch; named: the model's own losses, scalars, by name.

    records: what layers noted, for those that learn from it by themselves; see `Learner`. state: what the model keeps for
    the next step of a `StreamTask`, its gradient included; None: nothing.
    """

    nats: Tensor
    named: Mapping[str, Tensor]
    records: Mapping[str, tuple[Tensor, ...]] = MappingProxyType({})
    state: Any = None


def untold(done: float) -> None:
    """The tick of those who want no progress."""


class Task(Protocol):
    """Something to learn. Nothing of it changes while it is used, so it can be asked for any step in any order."""

    @property
    def data(self) -> dict[str, str]:
        """What identifies the data: name -> fingerprint. A run can only go on with the same."""

    def require(self, spec: Spec) -> None:
        """Raise ConfigError unless a model of that spec can learn this."""

    def batch(self, step: int) -> Batch:
        """The batch of update `step`, counted from 1, on the CPU; the same whenever it is asked for."""

    def size(self, batch: Batch) -> Size:
        """The size of a batch, or of a piece of one, that lies on the CPU."""

    def loss(self, model: Any, batch: Batch) -> Loss:
        """What the model loses on a batch that lies on its device. The model can be called, and nothing else."""

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """How well the model, which is in evaluation mode, does on held-out data; on about its first `limit` tokens."""


@runtime_checkable
class StreamTask(Task, Protocol):
    """A task whose rows go on from step to step, for a model that carries a state through training.

    The training loop keeps the state of each piece of a batch, without its gradient, gives it back with the same rows of
    the next step, and saves it in checkpoints.
    """

    def continues(self, step: int) -> bool:
        """Whether the rows of update `step`, counted from 1, go on from those of the one before it."""

    def loss(self, model: Any, batch: Batch, state: Any = None) -> Loss:
        """As of any task, after what the same rows left; None: they begin here. Its `state` is for the next step."""


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device; the copy to a GPU does not wait for the work before it."""
    if device.type == "cpu":
        return batch
    if device.type == "cuda":
        batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def device_of(model: nn.Module) -> torch.device:
    """Where a model's parameters lie."""
    return next(model.parameters()).device


def pieces(batch: Batch, count: int) -> list[Batch]:
    """A batch cut into at most `count` pieces of about equally many rows, none of them empty."""
    count = min(count, len(next(iter(batch.values()))))
    if count == 1:
        return [batch]
    cut = {name: tensor.tensor_split(count) for name, tensor in batch.items()}
    return [{name: parts[i] for name, parts in cut.items()} for i in range(count)]
