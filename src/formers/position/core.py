"""What a position inside attention may do: turn queries and keys, and take part in the score."""

from torch import Tensor, nn

from formers.places import Memo, Places, Spots
from formers.spec.core import Site, Spec


class Position(Spec):
    """How order enters attention. Built at a site with heads and head_dim."""

    def build(self, site: Site) -> "PositionLayer":
        raise NotImplementedError


class PositionLayer(nn.Module):
    """Does nothing; a position overrides the places where it acts, and says so in the two flags.

    biased: `bias` is added to the scaled scores. by_content: `scores` or `values` differ from plain attention,
    so that only the tile executor can run it.
    """

    biased = False
    by_content = False

    def turn(self, x: Tensor, places: Places, memo: Memo) -> Tensor:
        """Queries or keys (B, H, T, D) as they enter the score."""
        return x

    def bias(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        """Added to the scaled scores; broadcasts q against k, and head (H, 1, 1)."""
        raise NotImplementedError

    def scores(self, q: Tensor, k: Tensor, q_at: Spots, k_at: Spots, head: Tensor) -> Tensor:
        """Unscaled scores (B, H, N, R, C) of the tiles q (B, H, N, R, D) and k (B, H, N, C, D)."""
        return q @ k.mT

    def values(self, weights: Tensor, q_at: Spots, k_at: Spots, head: Tensor) -> Tensor | None:
        """What is added to the output (B, H, N, R, D) for weights (B, H, N, R, C); None: nothing."""
        return None


class NoPosition(Position):
    """No order inside attention."""

    def build(self, site: Site) -> PositionLayer:
        return PositionLayer()
