"""Patterns fixed by position: one attention layer, forward and backward, ours against PyTorch's and the packages'."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from formers.bench.lesson import Shape, Turn
from formers.bench.memory import MIB, high_water, in_fresh_process, resident
from formers.bench.patterned import (
    KINDS,
    big_bird_of_transformers,
    local_attention,
    longformer_of_transformers,
    ours_of,
    sdpa_of,
)
from formers.bench.race import race
from formers.bench.registry import BENCHES, Rival
from formers.bench.trial import Trial
from formers.native.kept import release
from formers.report.curves import Curve, save_curves
from formers.report.rows import Row, ratio_at_least, value_at_most

EXTRA = "rivals-attention"
SDPA = Rival("scaled_dot_product_attention, with products for queries, keys, values and output")
LOCAL = Rival("local-attention's LocalAttention, with the same products", package="local-attention", extra=EXTRA)
LONGFORMER = Rival("transformers' LongformerSelfAttention, and a product for the output", package="transformers")
BIG_BIRD = Rival("transformers' BigBirdBlockSparseAttention, and a product for the output", package="transformers")

FULL = Shape()
LENGTHS = (4_096, 16_384)
SHORT = (64, 128, 256, 512, 1_024, 2_048)
PAYS = 1.05  # times faster than plain attention
RIVALS = {
    "window": ["plain, causal", "local-attention"],
    "strided": ["plain, causal"],
    "fixed": ["plain, causal"],
    "longformer": ["plain, two-sided", "transformers' Longformer"],
    "big bird": ["plain, two-sided", "transformers' Big Bird"],
}


def shape_of(trial: Trial, length: int) -> Shape:
    """The shape at a length, or a small one where the trial is to be quick: Big Bird wants some blocks."""
    return replace(FULL, length=1024, dim=32, heads=2) if trial.quick else replace(FULL, length=length)


@BENCHES.case(
    "attention",
    "causal window of 256 (dim 512, 8 heads) against causal SDPA, 4,096 and 16,384 tokens",
    unit="ms",
    better="lower",
    rival=SDPA,
)
def window_beside_sdpa(trial: Trial) -> Iterator[Row]:
    """Each query sees 256 keys, its own included."""
    for length, times in zip(LENGTHS, (2, 7), strict=True):
        yield beside(trial, "window", length, partial(sdpa_of, "window"), times)


@BENCHES.case(
    "attention",
    "causal window of 256 against local-attention, 4,096 and 16,384 tokens",
    unit="ms",
    better="lower",
    rival=LOCAL,
)
def window_beside_package(trial: Trial) -> Iterator[Row]:
    """Theirs with the exact window, so that both see the same keys."""
    for length in LENGTHS:
        yield beside(trial, "window", length, local_attention, 2.5 if length == LENGTHS[-1] else None)


@BENCHES.case(
    "attention",
    "Longformer (256 keys on either side, 16 global tokens) against transformers, 4,096 and 16,384 tokens",
    unit="ms",
    better="lower",
    rival=LONGFORMER,
)
def longformer(trial: Trial) -> Iterator[Row]:
    """Global tokens with queries, keys and values of their own, both."""
    for length in LENGTHS:
        yield beside(trial, "longformer", length, longformer_of_transformers, 3)


@BENCHES.case(
    "attention",
    "Big Bird (blocks of 64, 3 of window, 3 random, 2 global) against transformers, 4,096 and 16,384 tokens",
    unit="ms",
    better="lower",
    rival=BIG_BIRD,
)
def big_bird(trial: Trial) -> Iterator[Row]:
    """Theirs in training mode, where its random blocks are random."""
    for length in LENGTHS:
        yield beside(trial, "big bird", length, big_bird_of_transformers, 3)


@BENCHES.case(
    "attention",
    "strided and fixed patterns (stride 128, 8 cells) against causal SDPA, 16,384 tokens",
    unit="ms",
    better="lower",
    rival=SDPA,
)
def strided_and_fixed(trial: Trial) -> Iterator[Row]:
    """Merged heads: each sees both parts of the pattern."""
    for kind in ("strided", "fixed"):
        yield beside(trial, kind, LENGTHS[-1], partial(sdpa_of, kind), 4)


def beside(trial: Trial, kind: str, length: int, rival: Callable[[Shape], Turn], times: float | None) -> Row:
    """Ours and the rival in turns."""
    shape = shape_of(trial, length)
    duel = trial.duel(ours_of(kind, shape), lambda: rival(shape), warmup=1, rounds=5)
    goal = None if times is None else ratio_at_least(times)
    return trial.row(f"{kind}, {shape.length:,} tokens", *duel.milliseconds(), goal=goal)


@BENCHES.case(
    "attention",
    "every pattern against plain attention, 64 to 2,048 tokens: from where it pays",
    unit="times",
    better="lower",
    rival=SDPA,
)
def crossover(trial: Trial) -> Iterator[Row]:
    """Plain attention is causal where the pattern is. Time over that of plain attention, the worst of all lengths."""
    lengths = SHORT[-1:] if trial.quick else SHORT
    times: dict[str, dict[int, float]] = {kind: {} for kind in KINDS}
    warmup, rounds = (1, 1) if trial.quick else (3, 15)
    with trial.progress(trial.case.title, 2 * (warmup + rounds) * len(lengths) * len(KINDS)) as tick:
        for kind in KINDS:
            for length in lengths:
                shape = shape_of(trial, length)
                turns = {"ours": ours_of(kind, shape), "plain": sdpa_of(kind, shape)}
                seconds = race(turns, warmup=warmup, rounds=rounds, tick=tick)
                times[kind][length] = seconds["ours"] / seconds["plain"]
    for kind, each in times.items():
        worst = max(each, key=lambda length: each[length])
        pays = [length for length in lengths if all(each[longer] * PAYS < 1 for longer in lengths if longer >= length)]
        note = (
            f"worst at {worst}; faster from {pays[0]:,} tokens on"
            if pays
            else f"worst at {worst}; not faster up to here"
        )
        yield trial.row(
            f"{kind}, time over plain attention's", each[worst], rival=None, goal=value_at_most(1.1), note=note
        )


@BENCHES.case(
    "attention",
    "peak memory above the inputs, and time, against length: every pattern and every rival",
    unit="MiB",
    better="lower",
)
def memory_and_time(trial: Trial) -> Iterator[Row]:
    """Each figure in a process of its own; a picture of both is left in the run's folder."""
    lengths = (1024, 2048) if trial.quick else (4_096, 8_192, 16_384)
    makers = contestants(trial.quick)
    found: dict[str, dict[int, tuple[float, float]]] = {name: {} for name in makers}
    with trial.progress(trial.case.title, len(makers) * len(lengths)) as tick:
        for name, (maker, *given) in makers.items():
            for length in lengths:
                shape = replace(shape_of(trial, length), length=length)
                found[name][length] = in_fresh_process(measure, maker, tuple(given), shape)
                tick(1, name)
    for kind in (kind for kind in KINDS if kind in found):
        yield from compared(trial, found, kind, [rival for rival in RIVALS[kind] if rival in found], lengths)
    path = trial.keep("attention.png")
    save_curves(path, "One attention layer, forward and backward", curves(found))
    trial.console.print(f"picture: {path}", highlight=False)


def contestants(quick: bool) -> dict[str, tuple[object, ...]]:
    """A maker of lessons, and what it is given before the shape; quick: two of them, for each takes processes of its own."""
    if quick:
        return {"window": (ours_of, "window"), "plain, causal": (sdpa_of, "window")}
    found: dict[str, tuple[object, ...]] = {kind: (ours_of, kind) for kind in KINDS}
    found |= {"plain, causal": (sdpa_of, "window"), "plain, two-sided": (sdpa_of, "longformer")}
    if LOCAL.installed:
        found["local-attention"] = (local_attention,)
    if LONGFORMER.installed:
        found |= {"transformers' Longformer": (longformer_of_transformers,)}
        found |= {"transformers' Big Bird": (big_bird_of_transformers,)}
    return found


def measure(maker: Callable[..., Turn], given: tuple[object, ...], shape: Shape) -> tuple[float, float]:
    """Peak bytes above what is there before a pass, and the shorter time of two passes; the first loads all code.

    What the first pass kept for later ones is given back, or it would count as there before.
    """
    turn = maker(*given, shape)
    turn()
    release()
    before = resident()
    peak = high_water(turn) - before
    return peak, race({"": turn}, warmup=0, rounds=2)[""]


def compared(
    trial: Trial,
    found: dict[str, dict[int, tuple[float, float]]],
    kind: str,
    rivals: list[str],
    lengths: tuple[int, ...],
) -> Iterator[Row]:
    """Peak memory at the greatest length beside each rival's, and how it grows."""
    last, before = lengths[-1], lengths[-2]
    ours = found[kind][last][0]
    for rival in rivals:
        name = f"{kind}, peak memory at {last:,} tokens"
        yield trial.row(name, ours / MIB, found[rival][last][0] / MIB, rival=rival, goal=ratio_at_least(1))
    growth = ours / found[kind][before][0]
    yield trial.row(f"{kind}, peak memory over that of half the length", growth, unit="times", goal=value_at_most(2.2))


def curves(found: dict[str, dict[int, tuple[float, float]]]) -> list[list[Curve]]:
    """Two panels: time and memory."""
    panels = (("seconds", 1, 1.0), ("MiB above the inputs", 0, 1 / MIB))
    return [
        [
            Curve(name, name in KINDS, what, tuple(each), tuple(value[which] * scale for value in each.values()))
            for name, each in found.items()
        ]
        for what, which, scale in panels
    ]
