"""Feature maps of random feature attention: sines and cosines, and rectified projections, of unit queries and keys."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.attention.kernel.directions import Pooled
from formers.attention.kernel.features import FeatureLayer, FeatureMap, Features, count_problems
from formers.call import Call
from formers.spec.core import Site

FLOOR = 0.05  # the kernel of opposite unit vectors is 0.135 at sigma = 1; estimates of one key are off by 0.1


class UnitFeatures(FeatureMap):
    """Features of queries and keys brought to length 1. Peng et al. 2021, arXiv:2103.02143.

    features: how many. pool: draws of directions among which each training step takes one by its seed; evaluation has the
    first. The directions are N(0, 1 / sigma^2) with a learned sigma for each head and dimension, from 1.

    Differs from the paper: where the estimated weights of all keys add up to less than 5 % of the keys' number, they are
    divided by that instead; the paper's code has constants that depend on its scale of features. Its pool is of 500.
    """

    features: int = 128
    pool: int = 64

    @property
    def count(self) -> int:
        return self.features

    @property
    def per_direction(self) -> int:
        """Features that a direction gives."""
        return 1

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from count_problems(self.features, self.per_direction)
        if self.pool < 1:
            yield f"a pool of {self.pool} draws holds no directions", "pool=64"


class UnitLayer(FeatureLayer):
    floor = FLOOR

    def __init__(self, spec: UnitFeatures, site: Site) -> None:
        super().__init__(spec.count)
        count = spec.features // spec.per_direction
        self.drawn, self._unit = Pooled(count, spec.pool, site), count**-0.5
        self.sharpness = nn.Parameter(torch.ones(site.heads, site.head_dim))  # 1 / sigma

    def directions(self, call: Call) -> Tensor:
        return self.drawn(call).to(self.sharpness.dtype) * self.sharpness[:, None]


class RandomFourier(UnitFeatures):
    """[sin(w . x), cos(w . x)] / sqrt(R): of the Gaussian kernel exp(-|q - k|^2 / 2), at sigma = 1, two features a
    direction. That is exp(q . k) up to a constant, for unit vectors."""

    @property
    def per_direction(self) -> int:
        return 2

    def build(self, site: Site) -> FeatureLayer:
        return RandomFourierLayer(self, site)


class RandomFourierLayer(UnitLayer):
    def forward(self, x: Tensor, directions: Tensor) -> Features:
        along = F.normalize(x, dim=-1) @ directions.mT
        phi: Tensor = SinCos.apply(along)
        return Features(phi * self._unit, None)


class SinCos(torch.autograd.Function):
    """[sin(x), cos(x)] side by side. Each is the derivative of the other, so nothing has to be worked out again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        both = torch.cat([x.sin(), x.cos()], -1)
        ctx.save_for_backward(both)
        return both

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        sin, cos = ctx.saved_tensors[0].chunk(2, -1)
        by_sin, by_cos = upstream.chunk(2, -1)
        return by_sin * cos - by_cos * sin


class ArcCosine(UnitFeatures):
    """relu(w . x) sqrt(2 / R): of the arc-cosine kernel of order 1, (sin a + (pi - a) cos a) / pi at an angle a, for
    sigma = 1."""

    def build(self, site: Site) -> FeatureLayer:
        return ArcCosineLayer(self, site)


class ArcCosineLayer(UnitLayer):
    def forward(self, x: Tensor, directions: Tensor) -> Features:
        along = F.normalize(x, dim=-1) @ directions.mT
        return Features(along.relu() * (2**0.5 * self._unit), None)
