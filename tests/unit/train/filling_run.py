"""A small run on a disk that fills up: from one update on, no file may grow beyond a size.

Usage: python filling_run.py RUN STEP BYTES. Prints the error that the run ends with. A program of its own, since the
limit counts for all that a process writes, and so for what pytest writes about its tests.
"""

import io
import resource
import sys
from pathlib import Path

import torch
from rich.console import Console
from tiny_run import TEXT, tiny_model, tiny_spec

from formers.errors import CheckpointError
from formers.tasks import Causal, prepare
from formers.train import train
from formers.train.task import Batch

SPEC = tiny_spec(checkpoint_every=2)


class FillsUp(Causal):
    """The task, whose batch of update `full_at` and those after it come with a full disk."""

    full_at: int
    room: int

    def batch(self, step: int) -> Batch:
        if step >= self.full_at:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.room, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return super().batch(step)


def main(run: Path, step: int, room: int) -> None:
    torch.set_num_threads(1)
    sys.dont_write_bytecode = True  # a module's, cut short by the limit, would stay behind for others to load
    task = FillsUp(prepare([TEXT], run.parent / "data"), SPEC)
    task.full_at, task.room = step, room
    try:
        train(tiny_model(), task, SPEC, run, console=Console(file=io.StringIO()))
    except CheckpointError as error:
        print(error)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
