"""Two processes on a core each, against one on one core: the same updates of the same model."""

import contextlib
import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from formers import family
from formers.bench.cases.train import random_text
from formers.bench.gpt2 import Shape
from formers.bench.race import race
from formers.bench.registry import BENCHES, Rival
from formers.bench.trial import Trial
from formers.distributed import Distribution
from formers.distributed.form import form
from formers.distributed.world import joined
from formers.errors import FormersError
from formers.report.rows import Row, ratio_at_least
from formers.tasks import Causal
from formers.train import TrainSpec
from formers.train.update import Updater

ONE = Rival("one process, one thread")
FULL = Shape(vocab=256, length=256)
SMALL = replace(FULL, dim=16, depth=1, heads=2, length=32)
SPEC = TrainSpec(steps=10_000, batch=16)
PATIENCE = 300  # seconds that a process may take to begin, or for one update


@BENCHES.case(
    "distributed",
    "GPT-2 shape (dim 256, depth 6, 8 heads), 16 rows of 256 tokens, fp32: two processes, one thread each, against one",
    unit="tokens/s",
    rival=ONE,
    goal=ratio_at_least(1.6),
)
def two_processes(trial: Trial) -> Iterator[Row]:
    """Tokens per second of updates, in turns: the two share each batch of the one. Each process has a core of its own."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    if len(cores) < 2:
        raise FormersError(f"two processes want a core each, and there is {len(cores)}: measure on a machine with two")
    shape = SMALL if trial.quick else FULL
    spec = SPEC.replace(length=shape.length)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        alone = stack.enter_context(crew(1, cores, shape, spec, folder))
        sharing = {name: stack.enter_context(crew(2, cores, shape, spec, folder, name)) for name in ("data", "full")}
        warmup, rounds = (1, 1) if trial.quick else (2, 5)
        with trial.progress(trial.case.title, 3 * (warmup + rounds)) as tick:
            seconds = race({"one": alone, **sharing}, warmup=warmup, rounds=rounds, tick=tick)
    tokens = spec.batch * spec.length
    for name, told in (("data", "each holds the whole model"), ("full", "each holds half of it, fully sharded")):
        changes: dict[str, Any] = {} if name == "data" else {"goal": None}
        yield trial.row(f"two processes, {told}", tokens / seconds[name], tokens / seconds["one"], **changes)


@contextmanager
def crew(
    size: int, cores: list[int], shape: Shape, spec: TrainSpec, folder: Path, shard: str = "data"
) -> Iterator[Callable[[], None]]:
    """A function that makes `size` processes do one update together; they end with the block."""
    spawning = multiprocessing.get_context("spawn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ends, processes = [], []
    for rank in range(size):
        ours, theirs = spawning.Pipe()
        given = (theirs, rank, size, port, cores[rank], shape, spec, folder / f"{shard}-{rank}-of-{size}", shard)
        processes.append(spawning.Process(target=work, args=given, daemon=True))
        processes[-1].start()
        theirs.close()
        ends.append(ours)

    def update() -> None:
        for end in ends:
            end.send("update")
        for end in ends:
            _heard(end)

    try:
        for end in ends:
            _heard(end)
        yield update
    finally:
        for process in processes:
            process.kill()
            process.join()


def _heard(end: Connection) -> None:
    """Wait for an answer. Raises FormersError where none comes."""
    with contextlib.suppress(EOFError):
        if end.poll(PATIENCE):
            end.recv()
            return
    raise FormersError("a process of this experiment has ended, or does not answer; its own message stands above")


def work(
    to: Connection, rank: int, size: int, port: int, core: int, shape: Shape, spec: TrainSpec, folder: Path, shard: Any
) -> None:
    """One of the processes: an update for every word that comes."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    where = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in where.items()} if size > 1 else {})
    folder.mkdir()
    with joined():
        torch.manual_seed(0)
        sizes = {"vocab": shape.vocab, "dim": shape.dim, "depth": shape.depth, "heads": shape.heads}
        model: Any = family.make("gpt2", **sizes, length=shape.length, dropout=0.0).build().train()
        processes, place = form(model, spec, "cpu", Distribution(shard))
        task = Causal(random_text(shape, folder), spec)
        update = Updater(model, task, spec, spec.optimizer.build(model), place, processes=processes)
        to.send("ready")
        for step in range(1, spec.steps + 1):
            to.recv()
            update(step).loss.item()
            to.send("done")
