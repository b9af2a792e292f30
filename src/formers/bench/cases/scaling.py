"""What sparsity is worth in decoding: the models of Scaling Transformers and Terraformer beside dense ones, arXiv:2111.12763."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from formers.bench.native import BYTES, Streams, engine_of, machine_bandwidth, touched
from formers.bench.race import race
from formers.bench.registry import BENCHES, Rival
from formers.bench.trial import Trial
from formers.family import make
from formers.report.rows import Row, ratio_at_least

DENSE = Rival("the dense model of the same class in the same engine, with weights of the same type")
SPARSE = ("feed_forward", "qkv", "loss")
# (member, what is sparse) for each row of the paper's table; the dense model is the first.
ROWS: dict[str, tuple[str, tuple[str, ...]]] = {
    "dense": ("scaling_transformer", ()),
    "+ sparse feed-forward": ("scaling_transformer", SPARSE[:1]),
    "+ sparse QKV": ("scaling_transformer", SPARSE[1:2]),
    "+ both": ("scaling_transformer", SPARSE[:2]),
    "+ sparse loss": ("scaling_transformer", SPARSE),
    "Terraformer": ("terraformer_lm", SPARSE),
}


@dataclass(frozen=True)
class Class:
    """One class of models: its preset, and how it is timed.

    dtype: of the weights. count: tokens of a turn, rounds: turns. together: whether the dense model stays in memory
    beside each sparse one, so that they take turns. paper: how many times faster than dense each row is there.
    """

    preset: str
    dtype: str = "bf16"
    count: int = 4
    rounds: int = 9
    together: bool = True
    depth: int = 24
    block_goal: float | None = None
    block_paper: float | None = None
    goals: dict[str, float] = field(default_factory=dict)
    paper: dict[str, float] = field(default_factory=dict)

    def spec(self, row: str, depth: int) -> Any:
        """The model of a row of the table."""
        member, sparse = ROWS[row]
        return make(member, self.preset, sparse=sparse, depth=depth, dropout=0.0)


MEDIUM = Class(
    "800m",
    block_paper=5.9 / 1.9,
    goals={"+ sparse loss": 12, "Terraformer": 12},
    paper={"+ sparse feed-forward": 0.160 / 0.093, "+ sparse QKV": 0.160 / 0.152, "+ both": 0.160 / 0.061},
)
LARGE = Class(
    "17b",
    count=2,
    rounds=3,
    together=False,
    depth=6,
    block_goal=90,
    block_paper=42.5,
    goals={"+ sparse loss": 60, "Terraformer": 60},
    paper={"+ sparse feed-forward": 3.690 / 1.595, "+ sparse QKV": 3.690 / 3.154, "+ both": 3.690 / 0.183}
    | {"Terraformer": 37},
)
TINY = Class("small", count=2, rounds=1, depth=2)


@BENCHES.case(
    "decode",
    "the 800M class (dim 1024, 24 blocks), bf16, native, greedy, one stream behind 16 tokens, random weights",
    unit="tokens/s",
    rival=DENSE,
)
def medium(trial: Trial) -> Iterator[Row]:
    """All rows of the paper's table, each in turns with the dense model."""
    yield from ablation(trial, TINY if trial.quick else MEDIUM)


@BENCHES.case(
    "decode",
    "the 17B class (dim 9216, 6 blocks), bf16, native, greedy, one stream behind 16 tokens, random weights",
    unit="tokens/s",
    rival=DENSE,
)
def large(trial: Trial) -> Iterator[Row]:
    """The same, one model after another: two do not fit into memory."""
    if not trial.quick:
        yield from ablation(trial, LARGE)


@BENCHES.case(
    "decode",
    "the 17B class, several streams at once",
    unit="tokens/s",
    rival=DENSE,
)
def batches(trial: Trial) -> Iterator[Row]:
    """Tokens of all streams together."""
    size = TINY if trial.quick else LARGE
    goals = {4: 25, 8: 15, 16: 8}
    found: dict[str, dict[int, float]] = {}
    for row in ("dense", "+ sparse loss"):
        engine = engine_of(size.spec(row, size.depth), size.dtype)
        found[row] = {n: n / seconds(trial, {row: Streams(engine, n, size.count)}, size)[row] for n in goals}
        del engine
    for streams, goal in goals.items():
        dense, sparse = found["dense"][streams], found["+ sparse loss"][streams]
        yield trial.row(f"{streams} streams, all sparse", sparse, dense, goal=ratio_at_least(goal))


def ablation(trial: Trial, size: Class) -> Iterator[Row]:
    """Tokens a second of every row, and what the machine would do at best."""
    bandwidth = machine_bandwidth(torch.get_num_threads())
    yield trial.row("read bandwidth", bandwidth / 1e9, unit="GB/s", rival=None)
    base = {"dense": Streams(engine_of(size.spec("dense", size.depth), size.dtype), 1, size.count)}
    alone = seconds(trial, base, size)["dense"]
    blocks = {"dense": median(base["dense"].in_blocks() for _ in range(size.rounds))}
    yield _row(trial, size, "dense", alone, None, bandwidth)
    if not size.together:
        base = {}
    for row in list(ROWS)[1:]:
        sparse = Streams(engine_of(size.spec(row, size.depth), size.dtype), 1, size.count)
        took = seconds(trial, {row: sparse} | base, size)
        if row == "+ both":
            blocks[row] = median(sparse.in_blocks() for _ in range(size.rounds))
        yield _row(trial, size, row, took[row], took.get("dense", alone), bandwidth)
        del sparse
    yield _block(trial, size, blocks)


def _block(trial: Trial, size: Class, each: dict[str, float]) -> Row:
    """A block alone, by the time that its operations take."""
    goal = None if size.block_goal is None else ratio_at_least(size.block_goal)
    note = f"in the paper {size.block_paper:.3g} times faster" if size.block_paper else ""
    found = (1e3 * each[row] / size.depth for row in ("+ both", "dense"))
    return trial.row(f"{size.preset}, a block, both sparse", *found, unit="ms", better="lower", goal=goal, note=note)


def seconds(trial: Trial, contestants: dict[str, Streams], size: Class) -> dict[str, float]:
    """Median seconds of a token of each."""
    with trial.progress(", ".join(contestants), (1 + size.rounds) * len(contestants)) as tick:
        found = race(contestants, warmup=1, rounds=size.rounds, tick=tick)
    return {name: each / size.count for name, each in found.items()}


def _row(trial: Trial, size: Class, row: str, took: float, dense: float | None, bandwidth: float) -> Row:
    spec = size.spec(row, size.depth)
    bytes_met = touched(spec) * BYTES[size.dtype]
    limit = bytes_met / bandwidth
    note = f"{bytes_met / 1e6:,.0f} MB a token, {1e3 * limit:.3g} ms of reading; took {1e3 * took:.3g} ms"
    note += f", {took / limit:.2f} times that"
    if row in size.paper:
        note += f"; in the paper {size.paper[row]:.3g} times faster than dense"
    goal = ratio_at_least(size.goals[row]) if row in size.goals else None
    return trial.row(f"{size.preset}, {row}", 1 / took, None if dense is None else 1 / dense, goal=goal, note=note)
