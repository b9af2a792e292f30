"""One million tokens: training steps of a Reformer on one sequence, and how far its plain twin gets in as much memory."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from formers.attention import Attention, Dense
from formers.bench.memory import GIB, free_memory, give_back_at_once, high_water, in_fresh_process
from formers.bench.registry import BENCHES, Rival
from formers.bench.trial import Trial
from formers.bench.watch import Ledger, pieces_of, watch
from formers.block import Block, stack
from formers.call import Call
from formers.data.source import standard_library
from formers.errors import DataError, FormersError
from formers.family.content import reformer
from formers.feedforward import MLP
from formers.model import Decoder
from formers.places import Places
from formers.report.rows import Row, value_at_most
from formers.tasks.chunked_loss import lost
from formers.train import AdamW
from formers.train.device import autocast

MOST = 22  # GiB
NEEDED = 21 << 10  # bytes of memory for each token of the sequence
RATE = 1e-4  # without a warm-up, the first step of 1e-3 overshoots
PLAIN = Rival("the same model as an ordinary stack of full causal attention, nothing of it in pieces")


@dataclass(frozen=True)
class Shape:
    """A Reformer, local and hashing layers in turn, and the sequence that it learns; measured: lengths of its twin.

    One hash, and twice as many hidden units as the stream is wide: as in the notebook that Reformer's authors published
    for half a million characters, at twice its width.
    """

    length: int = 1 << 20
    dim: int = 512
    depth: int = 6
    heads: int = 4
    hidden: int = 1024
    chunk: int = 64
    rounds: int = 1
    piece: int = 4096
    steps: int = 3
    precision: str = "bf16"
    measured: tuple[int, ...] = (8192, 16_384, 32_768)


FULL = Shape()
TINY = Shape(
    4096, dim=32, depth=2, heads=2, hidden=64, chunk=16, rounds=2, piece=256, steps=2, measured=(256, 512, 1024)
)


class Run(NamedTuple):
    """What came of training: nats a byte and seconds of each step, where the seconds went, and the peak in bytes."""

    losses: list[float]
    seconds: list[float]
    shares: dict[tuple[str, str], float]
    peak: int


@BENCHES.case(
    "million",
    "Reformer (dim 512, 6 layers, 4 heads, local and hashing in turn), training on one sequence of 1,048,576 bytes",
    unit="GiB",
    better="lower",
    needs="a file of at least a million bytes, or nothing: then the standard library's source is read",
)
def million(trial: Trial) -> Iterator[Row]:
    """Steps on the same sequence: loss, time and its shares, peak memory of the process."""
    shape = TINY if trial.quick else FULL
    require_memory(shape.length * NEEDED)
    text = read(trial, shape.length + 1)
    run = train(trial, shape, text)
    note = f"{shape.precision} autocast; all steps on the same {shape.length:,} bytes"
    for i, (loss, seconds) in enumerate(zip(run.losses, run.seconds, strict=True), 1):
        yield trial.row(f"loss before step {i}", loss, unit="nats a byte", note=note if i == 1 else "")
        yield trial.row(f"time of step {i}", seconds, unit="s")
    fallen = run.losses[-1] / run.losses[0]
    yield trial.row("the last of these losses over the first", fallen, unit="times", goal=value_at_most(1))
    yield trial.row("peak memory of the process", run.peak / GIB, goal=value_at_most(MOST))
    total = sum(run.shares.values())
    for (phase, kind), seconds in run.shares.items():
        yield trial.row(f"{phase}: {kind}", 100 * seconds / total, unit="% of time")
    yield longest(trial, shape, run.peak)


def require_memory(needed: int) -> None:
    """Raise FormersError where so many bytes are not free: the system would end the process after an hour."""
    free = free_memory()
    if free is not None and free < needed:
        what = f"this takes {needed / GIB:.1f} GiB of memory, and {free / GIB:.1f} GiB are free"
        raise FormersError(f"{what}; end other programs, or try --quick")


def read(trial: Trial, count: int) -> Tensor:
    """The first bytes of the user's file, or of the standard library's source, (1, count) int64."""
    if trial.data is not None:
        with trial.require_data().open("rb") as file:
            found = bytearray(file.read(count))
    else:
        found = bytearray()
        for document in standard_library():
            found += document.encode()
            if len(found) >= count:
                break
    if len(found) < count:
        raise DataError(f"{len(found):,} bytes are too few; give --data a file of {count:,} or more")
    return torch.from_numpy(np.frombuffer(found, np.uint8, count).astype(np.int64))[None]


def spec_of(shape: Shape) -> Decoder:
    """The Reformer, one head of its attention at a time."""
    side = math.isqrt(shape.length)
    sizes = {"dim": shape.dim, "depth": shape.depth, "heads": shape.heads, "hidden": shape.hidden}
    pieces = {"chunk": shape.chunk, "local_chunk": shape.chunk, "feed_forward_chunk": shape.piece}
    kinds = {"layers": ("local", "lsh"), "rounds": shape.rounds, "buckets": None}
    model: Any = reformer(256, shape=(side, side), dropout=0.0, **sizes, **pieces, **kinds)
    reversible = model.blocks[0]
    frugal = ((block, block.sublayers[0].replace(heads_at_once=1)) for block in reversible.blocks)
    blocks = tuple(block.replace(sublayers=(attention, *block.sublayers[1:])) for block, attention in frugal)
    changed: Decoder = model.replace(blocks=(reversible.replace(blocks=blocks),))
    return changed


def kinds_of(model: Any) -> list[tuple[str, str]]:
    """What the sublayers of each block are called here."""
    hashing = [block.sublayers[0].select is not None for block in model.blocks[0].blocks]
    return [("LSH attention" if lsh else "local attention", "feed-forward") for lsh in hashing]


def train(trial: Trial, shape: Shape, text: Tensor) -> Run:
    """Forward, backward, optimiser, so many times."""
    give_back_at_once()
    torch.manual_seed(0)
    spec = spec_of(shape)
    model = spec.build().train()
    optimizer = AdamW(learning_rate=RATE).build(model)
    losses: list[float] = []
    seconds: list[float] = []
    pieces = shape.steps * pieces_of(model, Call(Places.run(0, shape.length), remember=False))
    with trial.progress("starting", pieces) as tick:
        ledger = Ledger(lambda at: tick(description=f"step {len(losses) + 1} of {shape.steps}: {at}"))
        watch(model, kinds_of(spec), ledger)

        def steps() -> None:
            for step in range(1, shape.steps + 1):
                start = time.perf_counter()
                losses.append(update(model, optimizer, text, shape, ledger, step))
                seconds.append(time.perf_counter() - start)
                trial.console.print(f"step {step}: {losses[-1]:.4f} nats a byte, {seconds[-1]:,.1f} s")

        peak = high_water(steps)
    return Run(losses, seconds, dict(ledger.seconds), peak)


def update(
    model: nn.Module, optimizer: torch.optim.Optimizer, text: Tensor, shape: Shape, ledger: Ledger, step: int
) -> float:
    """One training step; the nats a byte before it."""
    ledger.begin("embedding", "forward")
    with autocast(text.device, shape.precision):
        nats = lost(model, text[:, 1:], text[:, :-1], chunk=shape.piece, seed=step).nats / shape.length
    ledger.begin("loss", "backward")
    nats.backward()
    ledger.begin("optimiser", "update")
    optimizer.step()
    optimizer.zero_grad()
    ledger.begin("")
    return nats.item()


def longest(trial: Trial, shape: Shape, budget: int) -> Row:
    """How long a sequence may be, so that the plain twin's peak is the same: its peak grows by the token."""
    with trial.progress("the plain twin", len(shape.measured)) as tick:
        peaks = []
        for length in shape.measured:
            peaks.append(in_fresh_process(twin_peak, shape, length))
            tick()
    first, second, third = shape.measured
    each = (peaks[1] - peaks[0]) / (second - first)
    foretold = peaks[1] + each * (third - second)
    note = (
        f"the rival's from its peaks at {first:,} and {second:,} tokens, {each / 1024:.0f} KiB a token more; at {third:,} "
        f"tokens that foretells {foretold / GIB:.2f} GiB, and {peaks[2] / GIB:.2f} GiB were measured"
    )
    reached = float(int(second + (budget - peaks[1]) / each))
    changes = {"unit": "tokens", "better": "higher", "rival": PLAIN.name, "note": note}
    return trial.row(f"longest sequence in {budget / GIB:.1f} GiB", float(shape.length), reached, **changes)


def twin(shape: Shape) -> Decoder:
    """The same embedding, norms, feed-forward and head; attention to everything, nothing reversible or in pieces."""
    model: Any = spec_of(shape)
    attention = Attention(shape.heads, projection=Dense(bias=False))
    feed_forward = MLP(shape.hidden, "relu")
    residual = model.blocks[0].blocks[0].residual
    plain: Decoder = model.replace(blocks=stack(Block((attention, feed_forward), residual), times=shape.depth))
    return plain


def twin_peak(shape: Shape, length: int) -> int:
    """The peak of a process that does a training step of the twin."""
    model = twin(shape).build().train()
    optimizer = AdamW(learning_rate=RATE).build(model)
    text = torch.randint(256, (1, length + 1), generator=torch.Generator().manual_seed(0))

    def step() -> None:
        with autocast(text.device, shape.precision):
            nats = lost(model, text[:, 1:], text[:, :-1]).nats / length
        nats.backward()
        optimizer.step()

    return high_water(step)
