"""Distance-aware attention: scores are multiplied by a learned function of the distance."""

import torch
from torch import Tensor, nn

from formers.places import Spots
from formers.position.core import Position, PositionLayer
from formers.spec.core import Site


class DistanceAware(Position):
    """DA-Transformer, Wu et al. 2020, arXiv:2010.06925: the score is ReLU(q k) * f(w |i - j|) / sqrt(D).

    f(x) = (1 + e^v) / (1 + e^(v - x)), with w and v learned for each head: f(0) = 1, a negative w favours near keys
    and a positive one far keys. A score of 0 is not a masked one, and left is not told from right.
    """

    def build(self, site: Site) -> PositionLayer:
        return DistanceAwareLayer(site.heads)


class DistanceAwareLayer(PositionLayer):
    by_content = True

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(heads))
        self.v = nn.Parameter(torch.zeros(heads))

    def scores(self, q: Tensor, k: Tensor, q_at: Spots, k_at: Spots, head: Tensor) -> Tensor:
        w, v = self.w[head], self.v[head]
        far = w * (q_at.pos - k_at.pos).abs()
        # log((1 + e^v) / (1 + e^(v - far))): the quotient itself overflows for a large v
        factor = (nn.functional.softplus(v) - nn.functional.softplus(v - far)).exp()
        return (q @ k.mT).relu() * factor
