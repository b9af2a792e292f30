"""Attention to slots and Fourier mixing: one layer, forward and backward, against plain attention and a package."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from formers.attention import LinearSlots, Linformer
from formers.bench.lesson import Plain, Shape, Turn, lesson
from formers.bench.registry import BENCHES, Rival
from formers.bench.trial import Trial
from formers.call import Call, Layer
from formers.fourier import Fourier
from formers.places import Places
from formers.report.rows import Goal, Row, ratio_at_least

EXTRA = "rivals-kernels"
SDPA = Rival("scaled_dot_product_attention, with products for queries, keys, values and output")
PACKAGE = Rival("linformer's LinformerSelfAttention", package="linformer", extra=EXTRA)

SLOTS = 256
LENGTHS = (1_024, 4_096, 16_384)


@BENCHES.case(
    "kernels",
    f"Linformer (dim 512, 8 heads, {SLOTS} slots) against SDPA, {LENGTHS[0]:,} to {LENGTHS[-1]:,} tokens",
    unit="ms",
    better="lower",
    rival=SDPA,
)
def linformer_beside_sdpa(trial: Trial) -> Iterator[Row]:
    """Both see the whole text: slots make no causal form."""
    for length in LENGTHS:
        shape = shape_of(trial, length)
        goal = ratio_at_least(3) if length == LENGTHS[-1] else None
        yield beside(trial, "Linformer", slots_of(shape), shape, plain, goal=goal)


@BENCHES.case(
    "kernels",
    f"Linformer (dim 512, 8 heads, {SLOTS} slots) against the package, {LENGTHS[0]:,} to {LENGTHS[-1]:,} tokens",
    unit="ms",
    better="lower",
    rival=PACKAGE,
)
def linformer_beside_package(trial: Trial) -> Iterator[Row]:
    """One projection for keys and one for values, in both; ours has biases besides."""
    for length in LENGTHS:
        shape = shape_of(trial, length)
        goal = ratio_at_least(1.5) if length == LENGTHS[-1] else None
        yield beside(trial, "Linformer", slots_of(shape), shape, package, goal=goal)


@BENCHES.case(
    "kernels",
    "Fourier mixing (dim 512) against SDPA, 512 and 4,096 tokens",
    unit="ms",
    better="lower",
    rival=SDPA,
)
def fourier_beside_sdpa(trial: Trial) -> Iterator[Row]:
    """The whole of what FNet has in place of attention."""
    for length in (512, 4_096):
        shape = shape_of(trial, length)
        yield beside(trial, "Fourier mixing", Fourier(), shape, plain, goal=ratio_at_least(2))


def shape_of(trial: Trial, length: int) -> Shape:
    """The shape at a length, or a small one where the trial is to be quick."""
    return replace(Shape(), length=64, dim=32, heads=2) if trial.quick else replace(Shape(), length=length)


def slots_of(shape: Shape) -> Linformer:
    """Ours, with as many slots as the package's."""
    return Linformer(shape.heads, shape.length, min(SLOTS, shape.length), LinearSlots("headwise"))


def beside(
    trial: Trial, name: str, layer: Layer, shape: Shape, rival: Callable[[Shape], Turn], goal: Goal | None = None
) -> Row:
    """Ours and the rival in turns."""
    duel = trial.duel(two_sided(layer, shape), lambda: rival(shape), warmup=1, rounds=5)
    return trial.row(f"{name}, {shape.length:,} tokens", *duel.milliseconds(), goal=goal)


def two_sided(layer: Layer, shape: Shape) -> Turn:
    """A lesson of our layer in an encoder."""
    torch.manual_seed(0)
    built = layer.build(shape.site.replace(causal=False)).train()

    def run(x: Tensor) -> Tensor:
        y: Tensor = built(x, Call(Places.run(0, shape.length), remember=False)).y
        return y

    return lesson(run, shape)


def plain(shape: Shape) -> Turn:
    """A lesson of PyTorch's own attention to the whole text."""
    return lesson(Plain(shape, causal=False), shape)


def package(shape: Shape) -> Turn:
    """A lesson of the package's layer."""
    from linformer import LinformerSelfAttention

    slots = min(SLOTS, shape.length)
    return lesson(LinformerSelfAttention(shape.dim, shape.length, k=slots, heads=shape.heads).train(), shape)
