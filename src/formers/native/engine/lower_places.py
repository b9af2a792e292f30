"""Rules for absolute positions, which enter at the embedding."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from formers.native.engine.build import Builder
from formers.native.engine.rules import place_rule
from formers.places import Places
from formers.position.absolute import AbsoluteLayer, AxialLayer, AxialSumLayer, LearnedLayer, SinusoidalLayer
from formers.position.coordinates import CoordinatesLayer
from formers.position.fixed_base import FixedBaseLayer
from formers.position.tables import LearnedLowRankLayer, LearnedSinusoidalLayer
from formers.position.time_bin import TimeBinLayer


@place_rule(LearnedLayer, LearnedSinusoidalLayer, AxialLayer)
def _(position: AbsoluteLayer, build: Builder, x: int) -> None:
    _tables(position.read_by_row(), build, x)


@place_rule(LearnedLowRankLayer)
def _(position: LearnedLowRankLayer, build: Builder, x: int) -> None:
    every = Places.run(0, position.table.num_embeddings, position.table.weight.device)
    _tables([position.vectors(every, torch.float32)[0]], build, x)


@place_rule(CoordinatesLayer)
def _(position: CoordinatesLayer, build: Builder, x: int) -> None:
    _tables([position.vectors(Places.run(0, position.canvas.length), torch.float32)[0]], build, x)


@place_rule(AxialSumLayer)
def _(position: AxialSumLayer, build: Builder, x: int) -> None:
    device: Any = position.tables[0].weight.device
    _tables([position.vectors(Places.run(0, position.spec.max_length, device), torch.float32)[0]], build, x)


@place_rule(FixedBaseLayer)
def _(position: FixedBaseLayer, build: Builder, x: int) -> None:
    vectors = [build.vector(position.scales), build.vector(position.start)]
    build.op("digits", writes=[x], ints=[position.spec.digits, *position.spec.bases], vectors=vectors)


@place_rule(TimeBinLayer)
def _(position: TimeBinLayer, build: Builder, x: int) -> None:
    build.op("time_bin", writes=[x], ints=[position.length])


@place_rule(SinusoidalLayer)
def _(position: SinusoidalLayer, build: Builder, x: int) -> None:
    rates = torch.exp(torch.arange(0, position.dim, 2, dtype=torch.float32) * (-math.log(10_000.0) / position.dim))
    build.op("sinusoid", writes=[x], ints=[position.spec.layout == "halves"], vectors=[build.vector(rates)])


def _tables(tables: Sequence[Tensor], build: Builder, x: int) -> None:
    """One row of each table is read for a token, so they are kept as they are."""
    digit = build.register(max(table.shape[1] for table in tables))
    build.op("place", writes=[x, digit], matrices=[build.matrix(table, dtype="fp32") for table in tables])
    build.release(digit)
