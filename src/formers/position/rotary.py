"""Rotary positions: queries and keys are turned by an angle that grows with the position."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from formers.places import Memo, Places
from formers.position.core import Position, PositionLayer
from formers.spec.core import Site


class Rotary(Position):
    """RoPE, Su et al. 2021, arXiv:2104.09864: pair i of a query or key at p is turned by p * theta^(-2i / D).

    pairing: "halves" pairs channel i with i + D/2 (GPT-NeoX, LLaMA); "adjacent" pairs 2i with 2i + 1 (the paper,
    RoFormer, GPT-J). They are one function up to an order of the channels of the projections. Values are not turned.
    """

    theta: float = 10_000.0
    pairing: Literal["halves", "adjacent"] = "halves"

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.theta <= 1:
            yield f"theta must exceed 1, got {self.theta}", "theta=10_000.0"
        if site.head_dim % 2:
            yield (
                f"rotary positions turn pairs of channels, but heads are {site.head_dim} wide",
                f"head_dim={site.head_dim + 1}",
            )

    def build(self, site: Site) -> PositionLayer:
        return RotaryLayer(self, site.head_dim)


class RotaryLayer(PositionLayer):
    def __init__(self, spec: Rotary, head_dim: int) -> None:
        super().__init__()
        self.spec, self.head_dim = spec, head_dim

    def turn(self, x: Tensor, places: Places, memo: Memo) -> Tensor:
        cos, sin = memo.once(
            ("rotary", self.spec, self.head_dim, places, x.dtype), lambda: self.angles(places, x.dtype)
        )
        if self.spec.pairing == "adjacent":
            a, b = x[..., 0::2], x[..., 1::2]
            return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def angles(self, places: Places, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and sin (1 or B, 1, T, D / 2), worked out in at least 32 bits: long positions need them."""
        exact = torch.promote_types(dtype, torch.float32)
        exponent = torch.arange(0, self.head_dim, 2, dtype=exact, device=places.pos.device) / self.head_dim
        angle = places.pos[:, None, :, None].to(exact) / self.spec.theta**exponent
        return angle.cos().to(dtype), angle.sin().to(dtype)
