"""Relative positions of keys alone: a learned vector for each distance, added to the key."""

from collections.abc import Iterator

from torch import Tensor, nn

from formers.places import Spots
from formers.position.core import Position, PositionLayer
from formers.spec.core import Site


class RelativeKeys(Position):
    """e_ij = q_i (k_j + p_(i-j)) / sqrt(D): Sukhbaatar et al. 2019, arXiv:1905.07799, equation 2; after Shaw et al. 2018.

    p has a row for each distance from 0 to reach - 1, and in an encoder for each to the other side, shared by the heads
    of a layer; distances of `reach` and more take the last one. Queries meet the rows of those distances alone that
    their keys have, so that a narrow pattern costs little however long the table is.

    Differs from the released code: each layer has a table of its own, and not one for all layers.
    """

    reach: int = 64

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.reach < 1:
            yield f"a table of {self.reach} distances has no row, not even for a token's own place", "reach=64"

    def build(self, site: Site) -> PositionLayer:
        return RelativeKeysLayer(self, site)


class RelativeKeysLayer(PositionLayer):
    by_content = True

    def __init__(self, spec: RelativeKeys, site: Site) -> None:
        super().__init__()
        self.furthest = spec.reach - 1
        self.nearest = 0 if site.causal else -self.furthest
        self.table = nn.Embedding(self.furthest - self.nearest + 1, site.head_dim)

    def scores(self, q: Tensor, k: Tensor, q_at: Spots, k_at: Spots, head: Tensor) -> Tensor:
        distance = (q_at.pos - k_at.pos).clamp(self.nearest, self.furthest)
        low, high = int(distance.min()), int(distance.max())
        rows = self.table.weight[low - self.nearest : high - self.nearest + 1]
        content = q @ k.mT
        return content + (q @ rows.mT).gather(-1, (distance - low).expand_as(content))
