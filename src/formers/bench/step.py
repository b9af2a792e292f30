"""The memory of one training step, apart from what is there before and stays behind."""

import gc
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from torch import Tensor, nn

from formers.bench.memory import high_water, resident
from formers.train import AdamW


class Peak(NamedTuple):
    """peak: bytes at the highest, without weights, their gradients and the optimiser's state."""

    peak: int
    seconds: float


def peak_of_step(model: nn.Module, loss: Callable[[], Tensor]) -> Peak:
    """A training step (forward, backward, AdamW) of a freshly built model. Use it in a fresh process."""
    optimizer = AdamW().build(model)
    gc.collect()
    before, start = resident(), time.perf_counter()
    there_and_back = high_water(lambda: loss().backward())
    gradients = sizes(parameter.grad for parameter in model.parameters())
    update = high_water(optimizer.step)
    kept = sizes(value for state in optimizer.state.values() for value in state.values())
    peak = max(there_and_back - gradients, update - gradients - kept) - before
    return Peak(peak, time.perf_counter() - start)


def sizes(tensors: Iterable[Tensor | None]) -> int:
    """Bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)
