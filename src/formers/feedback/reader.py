"""One layer at one token: attention to what memories the token meets, and a feed-forward."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from formers.attention.project import join_heads, split_heads
from formers.call import Call
from formers.init import ResidualLinear
from formers.products import Matrix
from formers.spec.core import Site

if TYPE_CHECKING:
    from formers.feedback.spec import Feedback


class Met(NamedTuple):
    """The memories that one token of each row meets, the furthest first.

    k, v: (B, H, n, D). distances: (n, D), what is added to each key. real: (B, 1, 1, n) bool, or None: all are memories.
    """

    k: Tensor
    v: Tensor
    distances: Tensor
    real: Tensor | None


class Reader(nn.Module):
    """The layer's own part: queries, the output of attention, the feed-forward, norms."""

    def __init__(self, spec: "Feedback", site: Site, head_dim: int) -> None:
        super().__init__()
        wide, self.head_dim = spec.heads * head_dim, head_dim
        self.q_proj = Matrix(site.dim, wide, bias=False)
        self.out_proj = ResidualLinear(wide, site.dim, bias=False)
        self.feed_forward = spec.feed_forward.build(site.part(1))
        self.residual = spec.residual.build(site, (spec, spec.feed_forward))

    def forward(self, x: Tensor, met: Met, call: Call) -> Tensor:
        """x (B, 1, M) -> (B, 1, M)."""
        y: Tensor = self.residual(x, (lambda y: self.attended(y, met), lambda y: self.feed_forward(y, call).y))
        return y

    def attended(self, x: Tensor, met: Met) -> Tensor:
        """x (B, 1, M) -> (B, 1, M): zeros where a row meets nothing."""
        q = split_heads(self.q_proj(x), self.head_dim) * self.head_dim**-0.5
        if not met.k.shape[2]:
            return torch.zeros_like(x)
        scores = q @ met.k.mT + q @ met.distances.mT
        if met.real is None:
            weights = scores.softmax(-1)
        else:  # a row that meets nothing has even weights, which are all taken away
            lowest = torch.finfo(scores.dtype).min
            weights = scores.masked_fill(~met.real, lowest).softmax(-1) * met.real
        return self.out_proj(join_heads(weights @ met.v))
