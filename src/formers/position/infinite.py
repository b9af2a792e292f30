"""Waves that drift: positions without an end."""

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from formers.call import Call
from formers.places import Places
from formers.position.absolute import AbsoluteLayer, AbsolutePosition
from formers.position.start import chance_of_order
from formers.spec.core import Site

KEY, SPAN, LEVELS = 2111_12763, 64, 5  # of the walks: their seed, and 64^5 positions before they begin again
Numbers = NDArray[np.float64]


class Infinite(AbsolutePosition):
    """Sines and cosines whose phases walk at random. A position kind of Terraformer, arXiv:2111.12763.

    It is described nowhere but in trax. Pair i of n = dim / 2 channels turns by f_i cycles a token, from 1/2 down to
    drift^2 / 2 geometrically; a random walk of its own, of steps with variance 1, is added to its phase, times
    sqrt(drift) / 4 cycles: after 1 / drift tokens the phase is off by a quarter of a cycle, and two distances that waves
    alone would confuse are told apart. The walks are the same in every model and every call.

    transform: "any" a learned matrix behind it, orthogonal at first; "diag" a learned positive scale, softplus of about 0;
    "none". affine: in training all phases begin anew at random, by the seed of the call. Differs from trax: the steps of
    the walks are normal, so that a walk can be entered at any position without going there.
    """

    drift: float = 0.03
    transform: Literal["any", "diag", "none"] = "any"
    affine: bool = False

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if not 0 < self.drift < 1:
            yield f"a drift lies between 0 and 1, got {self.drift}", "drift=0.03"
        if site.dim % 2:
            yield f"sines and cosines come in pairs, but dim is {site.dim}", f"dim={site.dim + 1}"

    def build(self, site: Site) -> AbsoluteLayer:
        return InfiniteLayer(self, site)


class InfiniteLayer(AbsoluteLayer):
    def __init__(self, spec: Infinite, site: Site) -> None:
        super().__init__()
        self.spec, self.path, self.dim = spec, site.path, site.dim
        if spec.transform == "any":
            self.matrix = nn.Parameter(nn.init.orthogonal_(torch.empty(site.dim, site.dim)))
        elif spec.transform == "diag":
            self.scale = nn.Parameter(torch.full((site.dim,), 1e-4))

    def vectors(self, places: Places, dtype: torch.dtype) -> Tensor:
        return self._waves(places, torch.zeros(self.dim), dtype)

    def forward(self, x: Tensor, call: Call) -> Tensor:
        if not (self.training and self.spec.affine):
            return super().forward(x, call)
        phases = torch.rand(self.dim, generator=chance_of_order(call, self.path), dtype=torch.float32)
        return x + self._waves(call.at, phases, x.dtype)

    def _waves(self, places: Places, phases: Tensor, dtype: torch.dtype) -> Tensor:
        """phases (M,) in cycles, added to all positions. Angles are worked out in double precision, on the CPU."""
        pos = places.pos.cpu().numpy()
        turned = self._cycles(pos.ravel()).reshape(*pos.shape, self.dim) + phases.double().numpy()
        waves = torch.from_numpy(np.cos(2 * math.pi * (turned % 1.0))).to(places.pos.device, dtype)
        if self.spec.transform == "any":
            return waves @ self.matrix.to(dtype)
        return waves * nn.functional.softplus(self.scale).to(dtype) if self.spec.transform == "diag" else waves

    def _cycles(self, pos: NDArray[np.int64]) -> Numbers:
        """pos (N,) -> how far each channel has turned, (N, M); the odd ones are a quarter ahead."""
        pairs = self.dim // 2
        rates = np.geomspace(0.5, 0.5 * self.spec.drift**2, num=pairs)
        even = pos[:, None] * rates + walks(pos, pairs) * math.sqrt(self.spec.drift) / 4
        return np.stack([even, even + 0.25], -1).reshape(len(pos), self.dim)


def walks(pos: NDArray[np.int64], count: int) -> Numbers:
    """Where `count` random walks of standard normal steps are after pos (N,) of them, (N, count).

    A stretch of SPAN^k steps whose sum is known is divided into SPAN shorter ones: normal numbers from its own seed, shifted
    so that they add up to the sum. So a walk is known anywhere after LEVELS divisions.
    """
    pos = pos % SPAN**LEVELS
    stretches, before = np.zeros(1, np.int64), np.zeros((1, count))
    total = SPAN ** (LEVELS / 2) * steps(0, LEVELS, count)[:1]
    for level in reversed(range(LEVELS)):
        free = np.stack([steps(int(stretch), level, count) for stretch in stretches])
        each = SPAN ** (level / 2) * (free - free.mean(1, keepdims=True)) + total[:, None] / SPAN
        reached = before[:, None] + np.cumsum(each, 1) - each
        wanted = np.unique(pos // SPAN**level)
        whole, piece = np.searchsorted(stretches, wanted // SPAN), wanted % SPAN
        stretches, before, total = wanted, reached[whole, piece], each[whole, piece]
    return before[np.searchsorted(stretches, pos)]


def steps(stretch: int, level: int, count: int) -> Numbers:
    """Standard normal numbers (SPAN, count), always the same for a stretch."""
    return np.random.Generator(np.random.Philox(counter=[0, 0, stretch, level], key=KEY)).standard_normal((SPAN, count))
