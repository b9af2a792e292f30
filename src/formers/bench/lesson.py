"""One layer, forward and backward: ours or anyone's, on the same random numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.call import Call, Layer
from formers.places import Places
from formers.spec.core import Site

Turn = Callable[[], None]


@dataclass(frozen=True)
class Shape:
    """One row of so many tokens, and a layer for them; the window is of routing, the hidden units of feed-forward."""

    length: int = 16_384
    dim: int = 512
    heads: int = 8
    chunk: int = 64
    rounds: int = 4
    window: int = 128
    hidden: int = 512

    @property
    def site(self) -> Site:
        return Site(dim=self.dim, causal=True)


def lesson(layer: Callable[[Tensor], Any], shape: Shape) -> Turn:
    """A forward and backward pass of a layer, which gives (1, T, M) or that and a loss of its own."""
    x = torch.randn(1, shape.length, shape.dim, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def turn() -> None:
        given = layer(x)
        y, *losses = given if isinstance(given, tuple) else (given,)
        torch.stack([y.square().mean(), *(loss.sum() for loss in losses)]).sum().backward()

    return turn


def ours(spec: Layer, shape: Shape) -> Turn:
    """The same of a layer of this library."""
    layer = spec.build(shape.site).train()

    def run(x: Tensor) -> tuple[Tensor, ...]:
        out = layer(x, Call(Places.run(0, shape.length), remember=False))
        return out.y, *out.losses.values()

    return lesson(run, shape)


class Plain(nn.Module):
    """Attention as PyTorch has it."""

    def __init__(self, shape: Shape, *, causal: bool = True) -> None:
        super().__init__()
        self.heads, self.causal = shape.heads, causal
        self.q, self.k, self.v, self.out = (nn.Linear(shape.dim, shape.dim) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (product(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for product in (self.q, self.k, self.v))
        y: Tensor = self.out(self.attend(q, k, v).transpose(1, 2).flatten(2))
        return y

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v (B, H, T, D) -> (B, H, T, D)."""
        return F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
