"""Transformer-XL's relative positions: the four terms of its score."""

import torch
from torch import Tensor, nn

from formers.places import Spots
from formers.position.absolute import sinusoid
from formers.position.core import Position, PositionLayer
from formers.spec.core import Site


class TransformerXL(Position):
    """Dai et al. 2019, arXiv:1901.02860: (q_i + u) k_j + (q_i + v) W_R R(i - j), all of it over sqrt(D).

    R is the sinusoid of the distance, sines before cosines. Differs from the released code: u and v belong to each
    layer, as in the paper's equations, and are not shared by all of them.
    """

    def build(self, site: Site) -> PositionLayer:
        return TransformerXLLayer(site)


class TransformerXLLayer(PositionLayer):
    by_content = True

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.dim, self.heads, self.causal = site.dim, site.heads, site.causal
        self.r_proj = nn.Linear(site.dim, site.heads * site.head_dim, bias=False)
        self.u = nn.Parameter(torch.zeros(site.heads, site.head_dim))
        self.v = nn.Parameter(torch.zeros(site.heads, site.head_dim))

    def scores(self, q: Tensor, k: Tensor, q_at: Spots, k_at: Spots, head: Tensor) -> Tensor:
        distance = q_at.pos - k_at.pos
        if self.causal:  # later keys are masked: they need no row
            distance = distance.clamp(min=0)
        nearest = int(distance.min())
        span = torch.arange(nearest, int(distance.max()) + 1, device=q.device)
        rows = self.r_proj(sinusoid(span, self.dim + self.dim % 2, "halves", q.dtype)[:, : self.dim])
        rows = rows.unflatten(-1, (self.heads, -1)).transpose(0, 1)[:, None]  # (H, 1, span, D)
        content = (q + self.u[:, None, None]) @ k.mT
        by_place = (q + self.v[:, None, None]) @ rows.mT
        return content + by_place.gather(-1, (distance - nearest).expand_as(content))
