"""The simple recurrent unit as Terraformer has it: a narrow branch beside the feed-forward."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from formers.call import Call, Layer, Out
from formers.init import ResidualLinear
from formers.products import Matrix
from formers.recurrence.scan import scan
from formers.spec.core import Site


class SRUBranch(Layer):
    """Down to `width`, through `depth` simple recurrent units, and up again. Lei et al. 2017, arXiv:1709.02755, in the
    form of Terraformer, Jaszczur et al. 2021, arXiv:2111.12763: beside the feed-forward, to carry order to lengths that
    training has not seen.

        f, r, y = W x + b;  c_t = sigmoid(f) c_(t-1) + (1 - sigmoid(f)) y;  out = sigmoid(r) c_t + (1 - sigmoid(r)) x sqrt(3)

    Its state is c of each unit, (B, width) and never longer; padding leaves it as it is. It runs from left to right, in
    an encoder too. Differs from the paper on SRU: no weights on c inside the gates, and no activation on c.
    """

    depth: int = 1
    width: int = 32

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.depth < 1 or self.width < 1:
            yield f"{self.depth} units, {self.width} wide, carry nothing from token to token", "depth=1, width=32"

    def build(self, site: Site) -> nn.Module:
        return SRUBranchLayer(self, site.dim)


class SRUBranchLayer(nn.Module):
    def __init__(self, spec: SRUBranch, dim: int) -> None:
        super().__init__()
        self.down = Matrix(dim, spec.width)
        self.units = nn.ModuleList(SRU(spec.width) for _ in range(spec.depth))
        self.up = ResidualLinear(spec.width, dim)

    def forward(self, x: Tensor, call: Call, state: tuple[Tensor, ...] | None = None, choices: Any = None) -> Out:
        """x (B, T, M); state: c of each unit, (B, width) each."""
        inner, kept = self.down(x), []
        for unit, carried in zip(self.units, state or (None,) * len(self.units), strict=True):
            inner, carried = unit(inner, call.at.real, carried)
            kept.append(carried)
        return Out(self.up(inner), tuple(kept) if call.remember else None)


class SRU(nn.Module):
    """One simple recurrent unit; proj makes the gates f and r and the update y, in this order."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = Matrix(width, 3 * width)

    def forward(self, x: Tensor, real: Tensor | None, carried: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (B, T, W) and c before it (B, W) -> the output (B, T, W) and c after it, in fp32 or better."""
        exact = torch.promote_types(x.dtype, torch.float32)
        forget, reset, update = self.proj(x).to(exact).chunk(3, -1)
        decay, reset = forget.sigmoid(), reset.sigmoid()
        fed = (1 - decay) * update
        if real is not None:
            decay = decay.masked_fill(~real[..., None], 1)
            fed = fed.masked_fill(~real[..., None], 0)
        # A copy, since what inference has left cannot be kept for a way back.
        start = x.new_zeros(len(x), x.shape[2], dtype=exact) if carried is None else carried.clone()
        states = scan(decay, fed, start)
        return (reset * states + (1 - reset) * x * math.sqrt(3)).to(x.dtype), states[:, -1].clone()  # c alone, not all
