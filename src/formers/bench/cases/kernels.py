"""Attention by features: one layer, forward and backward, against plain attention and a package; and decoding far on."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from formers.attention.kernel import FeatureMap, KernelAttention, Positive, RandomFourier
from formers.bench.far_on import far_on
from formers.bench.lesson import Plain, Shape, Turn, lesson, ours
from formers.bench.memory import GIB, free_memory
from formers.bench.race import race
from formers.bench.registry import BENCHES, Rival
from formers.bench.trial import Trial
from formers.call import Call
from formers.family import make
from formers.places import Places
from formers.report.rows import Row, ratio_at_least

SDPA = Rival("causal scaled_dot_product_attention, with products for queries, keys, values and output")
PACKAGE = Rival("performer-pytorch's SelfAttention", package="performer-pytorch", extra="rivals-kernels")

FEATURES = 256
LENGTHS = (1_024, 4_096, 16_384)
NEAR, FAR = 100, 100_000
SIZES = {"vocab": 258, "dim": 256, "depth": 2, "heads": 8, "hidden": 1024, "features": FEATURES, "dropout": 0.0}
MAPS: dict[str, FeatureMap] = {"Performer": Positive(FEATURES), "RFA": RandomFourier(FEATURES)}


def shape_of(trial: Trial, length: int) -> Shape:
    """The shape at a length, or a small one where the trial is to be quick."""
    return replace(Shape(), length=80, dim=32, heads=2) if trial.quick else replace(Shape(), length=length)


def by_features(name: str, shape: Shape) -> KernelAttention:
    """Our layer with that map."""
    return KernelAttention(shape.heads, features=MAPS[name])


@BENCHES.case(
    "kernels",
    f"Performer and RFA, causal (dim 512, 8 heads, {FEATURES} features), against causal SDPA",
    unit="ms",
    better="lower",
    rival=SDPA,
)
def beside_sdpa(trial: Trial) -> Iterator[Row]:
    """At 1,024 tokens features are more work than scores are."""
    for name in MAPS:
        for length in LENGTHS:
            shape = shape_of(trial, length)
            turn = ours(by_features(name, shape), shape)
            duel = trial.duel(turn, partial(plain, shape), warmup=1, rounds=5)
            goal = ratio_at_least(3) if length == LENGTHS[-1] else None
            yield trial.row(f"{name}, causal, {shape.length:,} tokens", *duel.milliseconds(), goal=goal)


@BENCHES.case(
    "kernels",
    f"Performer (dim 512, 8 heads, {FEATURES} features) against performer-pytorch, in both directions and causal",
    unit="ms",
    better="lower",
    rival=PACKAGE,
)
def beside_package(trial: Trial) -> Iterator[Row]:
    """Theirs without CUDA kernels, as it runs on a CPU; its causal form keeps every running sum for the way back."""
    for causal in (False, True):
        kind = "causal" if causal else "two-sided"
        for length in LENGTHS[1:]:
            shape = shape_of(trial, length)
            name, goal = f"Performer, {kind}, {shape.length:,} tokens", ratio_at_least(2)
            turn = our_turn(shape, causal=causal)
            short = shortage(shape) if causal and PACKAGE.installed else None
            if short is not None:
                took = race({"ours": turn}, warmup=1, rounds=3)["ours"]
                yield trial.row(name, 1e3 * took, goal=goal, note=short)
                continue
            duel = trial.duel(turn, partial(package, shape, causal=causal), warmup=1, rounds=3)
            yield trial.row(name, *duel.milliseconds(), goal=goal)


def plain(shape: Shape) -> Turn:
    """A lesson of PyTorch's own causal attention."""
    return lesson(Plain(shape), shape)


def our_turn(shape: Shape, *, causal: bool) -> Turn:
    """A lesson of our Performer layer, in a decoder or in an encoder."""
    torch.manual_seed(0)
    layer = by_features("Performer", shape).build(shape.site.replace(causal=causal)).train()

    def run(x: Tensor) -> Tensor:
        y: Tensor = layer(x, Call(Places.run(0, shape.length), remember=False)).y
        return y

    return lesson(run, shape)


def package(shape: Shape, *, causal: bool) -> Turn:
    """A lesson of the package's layer."""
    from performer_pytorch import SelfAttention

    width = shape.dim // shape.heads
    layer = SelfAttention(shape.dim, causal=causal, heads=shape.heads, dim_head=width, nb_features=FEATURES)
    return lesson(layer.train(), shape)


def shortage(shape: Shape) -> str | None:
    """Why the package's causal layer cannot be run here; None: it can. It keeps sums of F numbers for each number of its
    input, three times over."""
    needed, free = 3 * 4 * shape.length * shape.dim * FEATURES, free_memory()
    if free is None or needed < free:
        return None
    return f"not measured: the rival takes about {needed / GIB:.0f} GiB, and {free / GIB:.0f} are free"


@BENCHES.case(
    "kernels",
    f"decoding after {NEAR:,} and after {FAR:,} tokens (dim 256, 2 layers, {FEATURES} features)",
    unit="us",
    better="lower",
)
def decode_far(trial: Trial) -> Iterator[Row]:
    """Both streams in turns, in the native engine and in PyTorch."""
    near, far = (10, 200) if trial.quick else (NEAR, FAR)
    for name in ("performer", "rfa", "rfa_gate"):
        yield from far_on(trial, name, make(name, **SIZES), near, far)
