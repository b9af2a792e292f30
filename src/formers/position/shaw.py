"""Shaw's relative positions: a learned vector for each clipped distance, added to keys and to values."""

from collections.abc import Iterator

from torch import Tensor, nn

from formers.places import Spots
from formers.position.core import Position, PositionLayer
from formers.spec.core import Site


class Shaw(Position):
    """Shaw et al. 2018, arXiv:1803.02155: e_ij = q_i (k_j + a_K) / sqrt(D), z_i = sum_j w_ij (v_j + a_V).

    a_K and a_V are rows of tables of 2 * reach + 1 vectors, shared by the heads of a layer, chosen by j - i clipped
    to [-reach, reach]. Nothing of size T * S * D is ever made: queries meet the whole table, and scores are picked.
    """

    reach: int = 16

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.reach < 0:
            yield f"distances cannot be clipped to {self.reach}", "reach=16"

    def build(self, site: Site) -> PositionLayer:
        return ShawLayer(self, site.head_dim)


class ShawLayer(PositionLayer):
    by_content = True

    def __init__(self, spec: Shaw, head_dim: int) -> None:
        super().__init__()
        self.reach = spec.reach
        self.keys = nn.Embedding(2 * spec.reach + 1, head_dim)
        self.vectors = nn.Embedding(2 * spec.reach + 1, head_dim)

    def scores(self, q: Tensor, k: Tensor, q_at: Spots, k_at: Spots, head: Tensor) -> Tensor:
        content = q @ k.mT
        return content + (q @ self.keys.weight.T).gather(-1, self._rows(q_at, k_at).expand_as(content))

    def values(self, weights: Tensor, q_at: Spots, k_at: Spots, head: Tensor) -> Tensor:
        rows = self._rows(q_at, k_at).expand_as(weights)
        share = weights.new_zeros(*weights.shape[:-1], 2 * self.reach + 1).scatter_add(-1, rows, weights)
        return share @ self.vectors.weight

    def _rows(self, q_at: Spots, k_at: Spots) -> Tensor:
        return (k_at.pos - q_at.pos).clamp(-self.reach, self.reach) + self.reach
