"""Reversible stacks: the peak memory of a training step does not grow with the depth."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from formers.bench.memory import MIB, in_fresh_process
from formers.bench.registry import BENCHES, Rival
from formers.bench.step import Peak, peak_of_step
from formers.bench.trial import Trial
from formers.family.content import reformer
from formers.model import Decoder
from formers.report.rows import Row, value_at_most
from formers.tasks.chunked_loss import lost

ORDINARY = Rival("the same blocks as an ordinary stack, which keeps what its backward pass reads")


@dataclass(frozen=True)
class Shape:
    """Local and hashing layers in turn; depth is the greater of the two that are compared."""

    length: int = 16_384
    dim: int = 256
    depth: int = 24
    heads: int = 4
    chunk: int = 64
    piece: int = 1024


FULL, TINY = Shape(), Shape(length=2048, dim=64, depth=4, heads=2, chunk=16, piece=128)
SHALLOW = 2


@BENCHES.case(
    "reversible",
    "training step of 24 layers (local and hashing, dim 256), 16,384 tokens, reversible and ordinary",
    unit="MiB",
    better="lower",
    rival=ORDINARY,
)
def depth_and_memory(trial: Trial) -> Iterator[Row]:
    """Each figure in a process of its own, without weights, their gradients and the optimiser's state."""
    shape = TINY if trial.quick else FULL
    found: dict[tuple[int, bool], Peak] = {}
    with trial.progress(trial.case.title, 4) as tick:
        for depth in (SHALLOW, shape.depth):
            for reversible in (True, False):
                found[depth, reversible] = in_fresh_process(measure, shape, depth, reversible)
                tick()
    for depth in (SHALLOW, shape.depth):
        ours, rival = (found[depth, reversible].peak / MIB for reversible in (True, False))
        yield trial.row(f"peak memory of {depth} layers", ours, rival)
    ours, rival = (found[shape.depth, kind].peak / found[SHALLOW, kind].peak for kind in (True, False))
    name = f"peak memory of {shape.depth} layers over that of {SHALLOW}"
    yield trial.row(name, ours, rival, unit="times", goal=value_at_most(1.3))
    ours, rival = (found[shape.depth, reversible].seconds for reversible in (True, False))
    yield trial.row(f"time of a step of {shape.depth} layers", ours, rival, unit="s", note="one step, not in turns")


def measure(shape: Shape, depth: int, reversible: bool) -> Peak:
    """A training step of so many layers, after a short one of a small model that loads all code."""
    for length, layers in ((min(shape.length, 1024), SHALLOW), (shape.length, depth)):
        peak = one_step(shape, length, spec(shape, layers, reversible))
    return peak


def one_step(shape: Shape, length: int, model: Decoder) -> Peak:
    """Of a fresh model, on one sequence of random tokens."""
    built = model.build().train()
    text = torch.randint(256, (1, length + 1), generator=torch.Generator().manual_seed(0))
    return peak_of_step(built, lambda: lost(built, text[:, 1:], text[:, :-1], chunk=shape.piece).nats)


def spec(shape: Shape, depth: int, reversible: bool) -> Decoder:
    """A Reformer, or its blocks without reversibility."""
    axes = (shape.length // shape.chunk, shape.chunk)
    sizes = {"dim": shape.dim, "depth": depth, "heads": shape.heads, "hidden": 4 * shape.dim, "chunk": shape.chunk}
    pieces = {"local_chunk": shape.chunk, "feed_forward_chunk": shape.piece}
    model: Any = reformer(256, layers=("local", "lsh"), buckets=None, shape=axes, dropout=0.0, **sizes, **pieces)
    chosen: Decoder = model if reversible else model.replace(blocks=model.blocks[0].blocks)
    return chosen
