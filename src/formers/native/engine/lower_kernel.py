"""Rules for attention by features: sums over keys, which each token adds to and reads."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from formers.attention.kernel.cross import KernelCrossAttentionLayer
from formers.attention.kernel.features import (
    RELU_OFFSET,
    FeatureLayer,
    HyperbolicLayer,
    PositiveLayer,
    ReLULayer,
    SoftmaxLayer,
    TrigonometricLayer,
)
from formers.attention.kernel.fourier import ArcCosineLayer, RandomFourierLayer, UnitLayer
from formers.attention.kernel.layer import KernelAttentionLayer
from formers.attention.kernel.sums import Sums
from formers.native.engine.blocks import LANES, panel_width
from formers.native.engine.build import Builder, linear
from formers.native.engine.rules import (
    Heads,
    Slice,
    feature_rule,
    order_rule,
    output_rule,
    projection_rule,
    query_rule,
    sublayer_rule,
)
from formers.native.engine.weights import up_to

# In the order of `FeatureKind` in source/feature_shapes.h, where BEHIND_SUMS is too.
EXPONENTIAL, EXPONENTIALS, WAVES, RECTIFIED = range(4)
PER_DIRECTION = (1, 2, 2, 1)
BEHIND_SUMS = 16
NO_FLOOR = -1.0  # weights are taken as they are


class Made(NamedTuple):
    """Features of x: factor * kind(w . x) + offset for each of the directions w (H, R, D), x brought to length 1 where
    `unit` says so; their peak has square * |x|^2 in it. floor: as of a `FeatureLayer`, or NO_FLOOR."""

    kind: int
    directions: Tensor
    floor: float
    unit: bool = False
    factor: float = 1.0
    offset: float = 0.0
    square: float = 0.0

    @property
    def lanes(self) -> int:
        """Directions, and their padding."""
        return up_to(self.directions.shape[1], LANES)

    @property
    def padded(self) -> int:
        """Features, and their padding."""
        return PER_DIRECTION[self.kind] * self.lanes

    @property
    def slot(self) -> int:
        """Numbers that a head keeps."""
        return (self.directions.shape[2] + 1) * self.padded + BEHIND_SUMS

    def laid_out(self, sums: Sums) -> Tensor:
        """Sums of rows and heads as the engine keeps them, (B, H, 1, slot)."""
        parts = sums.products.mT.unflatten(-1, (PER_DIRECTION[self.kind], -1))
        rows = F.pad(parts, (0, self.lanes - parts.shape[-1])).flatten(2)
        behind = torch.stack([sums.weights, sums.peak, torch.ones_like(sums.peak)], -1)
        return torch.cat([rows, F.pad(behind, (0, BEHIND_SUMS - behind.shape[-1]))], -1)[:, :, None]


@feature_rule(PositiveLayer)
def _(features: PositiveLayer, build: Builder) -> Made:
    return _of_softmax(features, EXPONENTIAL, -0.5)


@feature_rule(HyperbolicLayer)
def _(features: HyperbolicLayer, build: Builder) -> Made:
    return _of_softmax(features, EXPONENTIALS, -0.5)


@feature_rule(TrigonometricLayer)
def _(features: TrigonometricLayer, build: Builder) -> Made:
    return _of_softmax(features, WAVES, 0.5)


@feature_rule(ReLULayer)
def _(features: ReLULayer, build: Builder) -> Made:
    return _of_softmax(features, RECTIFIED, 0.0)._replace(offset=RELU_OFFSET)


def _of_softmax(features: SoftmaxLayer, kind: int, squares: float) -> Made:
    """squares: how many of |x|^2 are in the peak, of x that are scaled as the directions are here."""
    drawn = features.drawn.directions
    width = drawn.shape[2]
    return Made(kind, drawn * width**-0.25, _floor(features), square=squares * width**-0.5)


@feature_rule(RandomFourierLayer)
def _(features: RandomFourierLayer, build: Builder) -> Made:
    return _of_units(features, WAVES, 1.0)


@feature_rule(ArcCosineLayer)
def _(features: ArcCosineLayer, build: Builder) -> Made:
    return _of_units(features, RECTIFIED, 2**0.5)


def _of_units(features: UnitLayer, kind: int, factor: float) -> Made:
    """With the directions of evaluation, the first of the pool."""
    drawn = features.drawn.pool[0].to(features.sharpness.dtype) * features.sharpness.detach()[:, None]
    return Made(kind, drawn, _floor(features), unit=True, factor=factor * drawn.shape[1] ** -0.5)


def _floor(features: FeatureLayer) -> float:
    return NO_FLOOR if features.floor is None else features.floor


@sublayer_rule(KernelAttentionLayer)
def _(layer: KernelAttentionLayer, build: Builder, x: int, into: int, add: bool) -> None:
    heads, features = layer.spec.heads, feature_rule.apply(layer.features, build)
    made: Heads = projection_rule.apply(layer.projection, build, x)
    order_rule.apply(layer.position, build, [(made.q, heads), (made.k, heads)])
    reads = [part.register for part in made]
    if layer.gate is not None:
        reads.append(build.register(heads))
        linear(build, x, reads[-1], layer.gate)
    caches = [build.cache("fixed", heads=heads, capacity=1, width=features.slot)]
    out = _attend("feature_attend", build, features, reads, made, caches)
    build.release(*set(reads))
    output_rule.apply(layer.projection, build, out, into, add)
    build.release(out)


@sublayer_rule(KernelCrossAttentionLayer)
def _(layer: KernelCrossAttentionLayer, build: Builder, x: int, into: int, add: bool) -> None:
    features = feature_rule.apply(layer.features, build)
    q: Slice = query_rule.apply(layer.projection, build, x)
    caches = [build.cache("given", heads=layer.spec.heads, capacity=0, width=features.slot)]
    out = _attend("feature_cross", build, features, [q.register], [q], caches)
    build.release(q.register)
    output_rule.apply(layer.projection, build, out, into, add)
    build.release(out)


def _attend(
    name: str, build: Builder, features: Made, reads: Sequence[int], made: Sequence[Slice], caches: Sequence[int]
) -> int:
    """The register of what the heads put out. made: where queries begin in what is read, and keys and values if any do."""
    heads, count, width = features.directions.shape
    panel = panel_width(count)
    out, room = build.register(heads * width), build.register(heads * min(len(made), 2) * features.padded)
    build.op(
        name,
        reads=reads,
        writes=[out, room],
        ints=[heads, width, features.kind, features.unit, count, panel, *(part.first for part in made)],
        floats=[features.factor, features.offset, features.square, features.floor],
        matrices=[build.matrix(_panels(features, panel), dtype="fp32")],
        caches=caches,
    )
    build.release(room)
    return out


def _panels(features: Made, panel: int) -> Tensor:
    """Directions (H, R, D) -> (H * panels, D * panel)."""
    padded = F.pad(features.directions.mT, (0, features.lanes - features.directions.shape[1]))
    return padded.unflatten(-1, (-1, panel)).transpose(1, 2).flatten(2).flatten(0, 1)
