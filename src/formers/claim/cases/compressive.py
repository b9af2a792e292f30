"""Compressive Transformer: as many slots of memory, some of them compressed, hold what a plain memory has forgotten."""

from collections.abc import Iterator
from typing import Any

import torch

from formers.attention import (
    Attention,
    Causal,
    CompressiveMemory,
    ConvCompression,
    MaxCompression,
    MeanCompression,
    MostUsedCompression,
    Segments,
)
from formers.attention.compressive.compression import SegmentCompression
from formers.bench.registry import CLAIMS, Rival
from formers.bench.trial import Trial
from formers.claim.recall_task import TINY, Recaller
from formers.layer_inputs import KeepInputs
from formers.position import TransformerXL
from formers.report.rows import Row, value_at_least, value_at_most

HEADS, MEMORY, RATE = 4, 32, 4
PLAIN = f"Transformer-XL, memory of {MEMORY}"
RECALLER = Recaller()
COMPRESSIONS: dict[str, tuple[SegmentCompression, str | None]] = {
    "compressed, means": (MeanCompression(RATE), None),
    "compressed, maxima": (MaxCompression(RATE), None),
    "compressed, convolution, attention reconstruction": (ConvCompression(RATE), "attention"),
    "compressed, convolution, auto-encoding": (ConvCompression(RATE), "autoencoding"),
    "compressed, most used": (MostUsedCompression(RATE), None),
}


@CLAIMS.case(
    "compressive_transformer",
    "a marker among the first 8 of 80 tokens (arXiv:1911.05507), told at the last: 1 layer, dim 48, segments of 8, "
    f"{MEMORY} slots of memory, plain or half of them compressed {RATE} to 1",
    unit="accuracy",
    rival=Rival("one who guesses"),
)
def compressive_transformer(trial: Trial) -> Iterator[Row]:
    """Learns with each memory; no gradient goes back through it, so losses of their own train the convolutions."""
    recaller = TINY if trial.quick else RECALLER
    kinds = attentions(recaller.task.segment)
    for name, model in zip(kinds, recaller.learn_each(trial, kinds), strict=True):
        goal, better = (value_at_most(0.2), "lower") if name == PLAIN else (value_at_least(0.95), "higher")
        yield trial.row(name, recaller.accuracy(model), recaller.task.chance, goal=goal, better=better)
        if COMPRESSIONS.get(name, (None, None))[1] is not None:
            found, unit = strays(model, recaller), "parameters"
            what = f"{name}: moved by its loss beside the compression"
            yield trial.row(what, found, unit=unit, rival=None, better="lower", goal=value_at_most(0))


def attentions(segment: int) -> dict[str, Attention]:
    """What is compared, each with MEMORY slots beside the segment."""
    plain = Attention(
        HEADS, pattern=Causal() & Segments(segment, MEMORY), position=TransformerXL(), memory=KeepInputs()
    )
    found = {PLAIN: plain}
    for name, (compression, loss) in COMPRESSIONS.items():
        half = CompressiveMemory(segment, MEMORY // 2, MEMORY // 2, compression, loss)  # type: ignore[arg-type]
        found[name] = Attention(HEADS, position=TransformerXL(), memory=half)
    return found


def strays(model: Any, recaller: Recaller) -> int:
    """How many parameters outside the compression and its decoder have a gradient of the loss that trains these."""
    loss = recaller.task.loss(model.train(), recaller.task.batch(1)).named["compression"]
    named = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
    model.eval()
    return sum(
        int((gradient != 0).sum()) for name, gradient in zip(named, gradients, strict=True) if ".memory." not in name
    )
