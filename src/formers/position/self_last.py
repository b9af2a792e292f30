"""A token that attends to itself only where nothing else may be seen."""

from collections.abc import Iterator

import torch
from torch import Tensor

from formers.places import Spots
from formers.position.core import Position, PositionLayer
from formers.spec.core import Site


class SelfLast(Position):
    """Adds `charge` to the score of a token with itself. Reformer, Kitaev et al. 2020, arXiv:2001.04451, section 2.

    Where queries are their own keys, a token would see little but itself. The charge is finite: a token that has no other
    to look at falls back on itself.
    """

    charge: float = -1e5

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if not -1e6 <= self.charge <= 0:
            yield f"a charge of {self.charge} must keep tokens from themselves, and not as a mask does", "charge=-1e5"

    def build(self, site: Site) -> PositionLayer:
        return SelfLastLayer(self.charge)


class SelfLastLayer(PositionLayer):
    biased = True

    def __init__(self, charge: float) -> None:
        super().__init__()
        self.charge = charge

    def bias(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        return self.charge * (q.pos == k.pos).to(torch.get_default_dtype())
