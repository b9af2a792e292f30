"""A sparse model that is larger than memory: its weights stay in a file, and a token brings in those that it needs."""

import itertools
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from formers.bench.cases.scaling import LARGE, TINY, Class
from formers.bench.memory import GIB, high_water, in_fresh_process
from formers.bench.native import BYTES, PROMPT, touched
from formers.bench.registry import BENCHES
from formers.bench.trial import Trial
from formers.model import on_meta
from formers.native.engine import Engine, Program, open_program, outline, save_program
from formers.report.machine import this_machine
from formers.report.rows import Row

ROW = "+ sparse loss"
ROOM = 1.1  # of the file, that must be free on the disk
TOKENS = 64  # that are timed


class Found(NamedTuple):
    """first: seconds from opening the file until its prompt is read. each: of the tokens after it. resident: the most bytes
    that the process had in memory."""

    first: float
    each: list[float]
    resident: int


@BENCHES.case(
    "decode",
    "larger than memory: blocks of the 17B class, all parts sparse, as many as memory does not hold, in bf16 from disk",
    unit="tokens/s",
)
def larger_than_memory(trial: Trial) -> Iterator[Row]:
    """Tokens a second of a model in a mapped file, and the memory of the process that writes them."""
    size, memory = TINY if trial.quick else LARGE, this_machine().memory
    if memory is None:
        yield trial.row(trial.case.title, None, note="this system does not say how much memory it has")
        return
    depth = size.depth if trial.quick else depth_beyond(size, memory)
    program = outlined(size, depth)
    weights = bytes_of(program)
    folder = trial.keep("model.program").parent
    free = shutil.disk_usage(folder).free
    name = f"{size.preset}, {depth} blocks, {weights / GIB:.3g} GiB of {size.dtype} in a file"
    if free < ROOM * weights:
        room = f"{folder} has {free / GIB:.3g} GiB free, and {ROOM * weights / GIB:.3g} are needed"
        note = f"{room}: run this in a folder on a larger disk"
        yield trial.row(name, None, note=note)
        return
    with TemporaryDirectory(dir=folder) as place:
        file = Path(place) / "model.program"
        with trial.progress(f"writing {weights / GIB:.3g} GiB to {folder}", 1) as tick:
            save_program(program, file)
            tick()
        with trial.progress("decoding from the file", 1) as tick:
            found = in_fresh_process(decoded, file, 2 if trial.quick else TOKENS)
            tick()
    bytes_met = touched(size.spec(ROW, depth)) * BYTES[size.dtype]
    note = f"{bytes_met / 1e6:,.0f} MB a token; the slowest took {max(found.each):.3g} s"
    yield trial.row(name, 1 / median(found.each), note=note)
    yield trial.row(
        f"the same: from opening it to the end of a prompt of {PROMPT}", found.first, unit="s", better="lower"
    )
    note = f"the machine has {memory / GIB:.3g} GiB"
    yield trial.row("the same: memory of the process", found.resident / GIB, unit="GiB", better="lower", note=note)


def decoded(file: Path, tokens: int) -> Found:
    """Open the program and read with it token by token; they are drawn, since what a model without training writes repeats
    itself, and with it the units that it needs."""
    each: list[float] = []
    before = time.perf_counter()

    def run() -> None:
        session = Engine(open_program(file)).session()
        drawn = np.random.default_rng(0).integers(session.engine.program.vocab, size=PROMPT + tokens)
        session.read(drawn[:PROMPT])
        for token in drawn[PROMPT:]:
            each.append(time.perf_counter())
            session.read([token])
        each.append(time.perf_counter())

    resident = high_water(run)
    return Found(each[0] - before, [after - begun for begun, after in itertools.pairwise(each)], resident)


def outlined(size: Class, depth: int) -> Program:
    """The program of the sparse model, its weights not packed yet."""
    return outline(on_meta(size.spec(ROW, depth)), size.dtype)


def bytes_of(program: Program) -> int:
    """Of its weights, packed."""
    return sum(matrix.rows * matrix.stride for matrix in program.matrices)


def depth_beyond(size: Class, memory: int) -> int:
    """How many blocks it takes until the weights are larger than this memory."""
    few, more = (bytes_of(outlined(size, depth)) for depth in (1, 2))
    return 1 + max(0, -(-(memory - few) // (more - few)))
