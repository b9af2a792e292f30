"""Relative labels: what a key is to a query that is of the global or of the long input. ETC, arXiv:2004.08483."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from formers.places import Spots
from formers.position.core import Position, PositionLayer
from formers.sides import are_global, in_one_segment
from formers.spec.core import Site

BEGINNING = 0.5  # the spread of labels at first, comparable to that of keys, as in the authors' code


class RelativeLabels(Position):
    """Ainslie et al. 2020, arXiv:2004.08483: q_i (k_j + a) / sqrt(D), nothing is added to values.

    a is a learned vector for each head and label. Within the long input (l2l), and within the global one (g2g), labels
    are distances j - i clipped to [-reach, reach]; across (l2g and g2l) there are two, "of my segment" and "of another".
    Queries of either input have labels of their own. Queries meet all labels in one small product, from which scores are
    picked, so nothing of size T * S * D is ever made.

    Differs from the authors' code: no learned number beside each vector.
    """

    reach: int = 12

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.reach < 0:
            yield f"distances cannot be clipped to {self.reach}", "reach=12"

    def build(self, site: Site) -> PositionLayer:
        return RelativeLabelsLayer(self, site)


class RelativeLabelsLayer(PositionLayer):
    """keys (H, labels, D): those of long queries, then those of global ones: distances, "my segment", "another"."""

    by_content = True

    def __init__(self, spec: RelativeLabels, site: Site) -> None:
        super().__init__()
        self.reach, self.distances = spec.reach, 2 * spec.reach + 1
        self.keys = nn.Parameter(torch.empty(site.heads, 2 * (self.distances + 2), site.head_dim))
        nn.init.trunc_normal_(self.keys, std=BEGINNING)

    def scores(self, q: Tensor, k: Tensor, q_at: Spots, k_at: Spots, head: Tensor) -> Tensor:
        content = q @ k.mT
        labels = self.labels(q_at, k_at).expand_as(content)
        return content + (q @ self.keys[:, None].mT).gather(-1, labels)

    def labels(self, q: Spots, k: Spots) -> Tensor:
        """The rows of the table: q and k broadcast against each other."""
        distance = (k.pos - q.pos).clamp(-self.reach, self.reach) + self.reach
        mine, other = are_global(q), are_global(k)
        across = self.distances + (~in_one_segment(q, k)).long()
        return torch.where(mine == other, distance, across) + (self.distances + 2) * mine
