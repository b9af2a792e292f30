"""What is added to the scores of a tile so that only pairs that meet are left. In floats: on a CPU a masked fill takes
twenty times as long as an addition. Positions, slots and buckets are whole numbers below 2^24, exact in fp32."""

from typing import NamedTuple

import torch
from torch import Tensor

BAR = -1e9  # added to a pair that does not meet
BARRED = BAR / 2  # a score below this is of such a pair
EXACT = 1 << 24  # whole numbers up to here are exact in fp32


class Sides(NamedTuple):
    """What is known of the queries and the keys of some tiles, one number each: (n, c, 1) and (n, 1, C)."""

    q: Tensor
    k: Tensor


def bar_later(scores: Tensor, at: Sides, scratch: Tensor) -> None:
    """Bar keys that stand behind their query."""
    torch.sub(at.k, at.q, out=scratch)
    scores.add_(scratch.clamp_(0, 1), alpha=BAR)


def bar_far(scores: Tensor, slots: Sides, reach: int, scratch: Tensor) -> None:
    """Bar pairs whose slots are `reach` apart or more."""
    torch.sub(slots.k, slots.q, out=scratch)
    scores.add_(scratch.abs_().sub_(reach - 1).clamp_(0, 1), alpha=BAR)


def bar_unlike(scores: Tensor, buckets: Sides, scratch: Tensor) -> None:
    """Bar pairs of two buckets."""
    torch.sub(buckets.k, buckets.q, out=scratch)
    scores.add_(scratch.abs_().clamp_(0, 1), alpha=BAR)


def charge_same(scores: Tensor, at: Sides, charge: float, scratch: Tensor) -> None:
    """Charge a token that meets itself."""
    torch.sub(at.k, at.q, out=scratch)
    scores.add_(scratch.abs_().clamp_(0, 1).neg_().add_(1), alpha=charge)
