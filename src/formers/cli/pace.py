"""How fast this machine trains some models, found by a few steps that are thrown away."""

import copy
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from torch import nn

from formers.tasks import Task
from formers.train import TrainSpec
from formers.train.device import pick_device
from formers.train.update import Updater

WARM, TIMED = 2, 5


class Pace(NamedTuple):
    """A training spec as this machine runs it best, and the seconds that one step of every model takes."""

    training: TrainSpec
    seconds: float


def find_pace(models: Iterable[nn.Module], task: Callable[[TrainSpec], Task], training: TrainSpec) -> Pace:
    """The faster of fp32 and bf16 for these models together on this machine. They stay as they are."""
    models = list(models)
    choices = [training.replace(precision=precision) for precision in ("fp32", "bf16")]
    paces = [Pace(choice, sum(_seconds(model, task, choice) for model in models)) for choice in choices]
    return min(paces, key=lambda pace: pace.seconds)


def _seconds(model: nn.Module, task: Callable[[TrainSpec], Task], training: TrainSpec) -> float:
    device = pick_device()
    scratch: Any = copy.deepcopy(model).to(device).train()
    update = Updater(scratch, task(training), training, training.optimizer.build(scratch), device)
    seconds = []
    for step in range(1, WARM + TIMED + 1):
        start = time.perf_counter()
        update(step).loss.item()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds[WARM:])[TIMED // 2]
