"""Feature maps: phi with phi(q) . phi(k) near a kernel of q and k, so that sums over keys take the place of scores."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from formers.attention.kernel.directions import Lengths, Redrawn
from formers.attention.kernel.pieces import gradients
from formers.call import Call
from formers.spec.core import Site, Spec


class Features(NamedTuple):
    """phi (B, H, T, F), each token's in units of exp(peak), (B, H, T); None: all in units of 1.

    A constant factor of all keys, or of a query, cancels where weights are normalised, and is left out.
    """

    phi: Tensor
    peak: Tensor | None


# The gradients by phi and by the peak (None: 0) -> those by x and by the directions, None where not needed.
WayBack = Callable[[Tensor, Tensor | None], list[Tensor | None]]


class FeatureMap(Spec):
    """Built at a site with heads and head_dim."""

    @property
    def count(self) -> int:
        """How many features there are."""
        raise NotImplementedError

    def build(self, site: Site) -> "FeatureLayer":
        raise NotImplementedError


class FeatureLayer(nn.Module):
    """count: of features. floor: the least that a query's weights, before they are made to add up to 1, are taken to be
    in the mean; None: they are taken as they are, even where they add up to nothing or less."""

    floor: float | None = 0.0

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def directions(self, call: Call) -> Tensor:
        """(H, R, D) for this call, with a gradient where something of them is learned."""
        raise NotImplementedError

    def forward(self, x: Tensor, directions: Tensor) -> Features:
        """Queries or keys x (B, H, T, D), in fp32 or better."""
        raise NotImplementedError

    def with_way_back(self, x: Tensor, directions: Tensor, needed: Sequence[bool]) -> tuple[Features, WayBack]:
        """The features, without a graph, and the way from their gradients back to those of x and of the directions, where
        these are needed, in this order. It may overwrite what it is given."""
        leaves = [t.detach().requires_grad_(need) for t, need in zip((x, directions), needed, strict=True)]
        with torch.enable_grad():
            made: Features = self(*leaves)
        alone = Features(made.phi.detach(), None if made.peak is None else made.peak.detach())
        return alone, lambda by_phi, by_peak: gradients(made, (by_phi, by_peak), leaves)

    def records(self) -> dict[str, tuple[Tensor, ...]]:
        """What training is to be told."""
        return {}


class SoftmaxFeatures(FeatureMap):
    """Features of exp(q . k / sqrt(D)), the kernel of softmax attention. Choromanski et al. 2020, arXiv:2009.14794.

    features: how many. orthogonal: directions at right angles, which lowers the error; else independent ones.
    lengths: of orthogonal directions, "chi" as Gaussian ones are, or "sqrt", all sqrt(D). redraw: updates after which
    training draws others, None: never.
    """

    features: int = 256
    orthogonal: bool = True
    lengths: Lengths = "chi"
    redraw: int | None = 1000

    @property
    def count(self) -> int:
        return self.features

    @property
    def per_direction(self) -> int:
        """Features that a direction gives."""
        return 1

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from count_problems(self.features, self.per_direction)
        if self.redraw is not None and self.redraw < 1:
            yield f"directions cannot be drawn anew after every {self.redraw} updates", "redraw=1000"


class SoftmaxLayer(FeatureLayer):
    """What the maps by these directions share."""

    def __init__(self, spec: SoftmaxFeatures, site: Site) -> None:
        super().__init__(spec.count)
        lengths = spec.lengths if spec.orthogonal else None
        self.drawn = Redrawn(spec.features // spec.per_direction, lengths, spec.redraw, site)
        self._scale: float = site.head_dim**-0.25  # of queries and of keys, so that products are those of scores

    def directions(self, call: Call) -> Tensor:
        return self._scale * self.drawn(call)

    def half_square(self, x: Tensor) -> Tensor:
        """|x|^2 / 2 of scaled queries or keys, (B, H, T)."""
        return x.square().sum(-1) * (self._scale**2 / 2)

    def records(self) -> dict[str, tuple[Tensor, ...]]:
        return self.drawn.noted()


class Positive(SoftmaxFeatures):
    """FAVOR+: exp(w . x - |x|^2 / 2), which is positive, so that no weight is negative and no sum of weights 0."""

    def build(self, site: Site) -> FeatureLayer:
        return PositiveLayer(self, site)


class PositiveLayer(SoftmaxLayer):
    """Exponents are measured from the token's largest. That is a factor of the token, and its gradient cancels: the one
    through the features against the one through the peak, so neither is taken."""

    def forward(self, x: Tensor, directions: Tensor) -> Features:
        along = x @ directions.mT
        largest = along.detach().amax(-1, keepdim=True)
        return Features(along.sub_(largest).exp_(), largest[..., 0] - self.half_square(x))

    def with_way_back(self, x: Tensor, directions: Tensor, needed: Sequence[bool]) -> tuple[Features, WayBack]:
        """By hand and in place: so the features and their gradient are all that the cache has to hold."""
        made: Features = self(x, directions)

        def back(by_phi: Tensor, by_peak: Tensor | None) -> list[Tensor | None]:
            by_along = by_phi.mul_(made.phi)
            by_x = by_along @ directions
            if by_peak is not None:
                by_x.addcmul_(x, by_peak[..., None], value=-(self._scale**2))
            return [by_x, (by_along.mT @ x).sum(0) if needed[1] else None]

        return made, back


class Hyperbolic(SoftmaxFeatures):
    """exp(w . x - |x|^2 / 2) and exp(-w . x - |x|^2 / 2): two features a direction, of less variance together."""

    @property
    def per_direction(self) -> int:
        return 2

    def build(self, site: Site) -> FeatureLayer:
        return HyperbolicLayer(self, site)


class HyperbolicLayer(SoftmaxLayer):
    def forward(self, x: Tensor, directions: Tensor) -> Features:
        along = x @ directions.mT
        largest = along.detach().abs().amax(-1, keepdim=True)
        phi = torch.cat([(along - largest).exp(), (-along - largest).exp()], -1)
        return Features(phi, largest[..., 0] - self.half_square(x))


class Trigonometric(SoftmaxFeatures):
    """exp(|x|^2 / 2) [sin(w . x), cos(w . x)]: what positive features replace. Their sums may be 0 or negative, and are
    where the kernel is small: for comparisons only."""

    @property
    def per_direction(self) -> int:
        return 2

    def build(self, site: Site) -> FeatureLayer:
        return TrigonometricLayer(self, site)


class TrigonometricLayer(SoftmaxLayer):
    floor = None

    def forward(self, x: Tensor, directions: Tensor) -> Features:
        along = x @ directions.mT
        return Features(torch.cat([along.sin(), along.cos()], -1), self.half_square(x))


class ReLUKernel(SoftmaxFeatures):
    """relu(w . x) + 1e-3: the generalised attention of arXiv:2009.14794, which estimates no softmax and may learn better."""

    def build(self, site: Site) -> FeatureLayer:
        return ReLULayer(self, site)


class ReLULayer(SoftmaxLayer):
    def forward(self, x: Tensor, directions: Tensor) -> Features:
        return Features((x @ directions.mT).relu() + RELU_OFFSET, None)


RELU_OFFSET = 1e-3


def count_problems(features: int, per_direction: int) -> Iterator[tuple[str, str]]:
    """What is wrong with a number of features."""
    if features < 1:
        yield f"{features} features tell keys not apart", "features=256"
    elif features % per_direction:
        what = f"a direction gives {per_direction} features, and {features} are not a multiple of that"
        yield what, f"features={features + 1}"
