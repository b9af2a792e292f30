"""A program that starts the same small run again and again, killing it at random moments until it ends by itself.

Usage: python killed_run.py RUN SEED KILLS. Prints a line of JSON: how many attempts were killed, and what the folder
held after each. The runs are forks of one process, so that PyTorch is loaded once.
"""

import io
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import torch._dynamo  # loaded by the first optimiser: here once, and not by every fork
from rich.console import Console
from tiny_run import TEXT, tiny_model, tiny_spec

from formers.tasks import Causal, prepare
from formers.train import Run, train
from formers.train.checkpoint import require_whole

SPEC = tiny_spec(steps=40, checkpoint_every=1, evaluate_every=10, keep=2)


def attempt(run: Path) -> None:
    prepared = prepare([TEXT], run / "data")
    console = Console(file=io.StringIO())
    train(tiny_model(), Causal(prepared, SPEC), SPEC, run, resume=Run(run).started, console=console)


def look(run: Path) -> list[str]:
    """The names of what lies in the folder of checkpoints; raises CheckpointError if one of them is not whole."""
    folder = Run(run)
    for checkpoint in folder.checkpoints():
        require_whole(checkpoint)
    checkpoints = run / "checkpoints"
    return sorted(path.name for path in checkpoints.iterdir()) if checkpoints.is_dir() else []


def newest(run: Path) -> int:
    return max((int(path.name.removeprefix("step-")) for path in Run(run).checkpoints()), default=0)


def main(run: Path, seed: int, kills: int) -> None:
    torch.set_num_threads(1)
    chance = random.Random(seed)
    seen = []
    for _ in range(kills):
        goal = newest(run) + chance.randint(0, 4)
        child = os.fork()
        if not child:
            attempt(run)
            os._exit(0)
        while newest(run) < goal and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        seen.append(look(run))
    attempt(run)
    print(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
