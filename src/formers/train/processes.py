"""The processes that train one model together. Here there is one, which does everything by itself."""

import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from formers.train.task import Batch


class OneProcess:
    """One process. `formers.distributed.ManyProcesses` answers the same questions for several.

    rank, size: which of how many this process is. first: whether it is the one that writes, prints and draws.
    """

    rank, size = 0, 1

    def __init__(self, *, swap: bool = False) -> None:
        """swap: what passes keep for their way back waits in the CPU's memory, and not in the GPU's."""
        self._swap = swap

    @property
    def first(self) -> bool:
        return self.rank == 0

    def own(self, parts: list[Batch]) -> list[Batch]:
        """The rows of each piece of a batch that are this process's."""
        return parts

    def share(self, own: Batch, part: Batch) -> float:
        """How much of a piece its own rows are: the weight of losses that are means over rows."""
        return 1.0

    def dropout_seed(self, seed: int) -> int:
        """The seed of what each row draws for itself, such as dropout."""
        return seed

    def passing(self) -> AbstractContextManager[Any]:
        """What passes forwards and backwards run in."""
        return torch.autograd.graph.save_on_cpu(pin_memory=True) if self._swap else nullcontext()

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add up the gradients of all processes, wherever that has not been done by now."""

    def clip(self, parameters: list[Tensor], largest: float | None) -> Tensor:
        """Shorten the gradient to a norm of at most `largest`; gives the norm that it had, a scalar."""
        return clip_grad_norm_(parameters, math.inf if largest is None else largest)

    def sum(self, scalars: list[Tensor]) -> list[Tensor]:
        """Each of these numbers summed over processes."""
        return scalars

    def any(self, asked: bool) -> bool:
        """Whether any process says yes: the same answer for all."""
        return asked

    def whole(self, tensors: Mapping[str, Tensor], of: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Tensors as they are where nothing is divided; what is gathered is complete in the first process alone.

        of: the parameter that a tensor goes with, by the tensor's name: it is divided as the parameter is.
        """
        return dict(tensors)

    def whole_shape(self, tensor: Tensor) -> tuple[int, ...]:
        """The shape of a tensor of the model where nothing is divided."""
        return tuple(tensor.shape)

    def fill(self, tensor: Tensor, whole: Tensor) -> None:
        """Copy this process's part of a whole tensor into the tensor that holds the part."""
        tensor.copy_(whole)

    def part(self, parameter: Tensor, whole: Tensor) -> Tensor:
        """What goes with this process's part of a parameter, of a tensor that goes with all of it."""
        return whole

    def whole_state(self, carried: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        """The state of all rows, from that of each process's rows."""
        return carried

    def own_state(self, carried: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        """The state of this process's rows, of that of all rows."""
        return carried

    def after_evaluation(self, model: nn.Module) -> None:
        """Let go of what an evaluation has gathered."""

    def wait(self) -> None:
        """Go on when every process has come here."""


def clipped(parameters: list[Tensor], norm: Tensor, largest: float | None) -> None:
    """Scale gradients as clip_grad_norm_ does, by a norm that is known."""
    if largest is None:
        return
    factor = torch.clamp(largest / (norm + 1e-6), max=1.0)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(factor.to(parameter.grad.device))
