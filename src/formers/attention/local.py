"""Chunks of positions as sorted chunks: the order is the sequence's own, and there is one round of it."""

import torch

from formers.attention.pattern import Blocks, Both, Causal, Pattern
from formers.attention.sorted.plan import Rules, SortedPlan
from formers.places import Places


def chunks_of(pattern: Pattern) -> tuple[Rules, bool] | None:
    """How chunks meet under Blocks(...) or Causal() & Blocks(...), and whether causally; None: it is another pattern."""
    sides = (pattern.left, pattern.right) if isinstance(pattern, Both) else (pattern,)
    blocks = [side for side in sides if isinstance(side, Blocks)]
    causal = any(isinstance(side, Causal) for side in sides)
    if len(blocks) != 1 or len(sides) != 1 + causal:
        return None
    after = 0 if causal else blocks[0].after
    return Rules(blocks[0].size, blocks[0].before, after, once=False), causal


def in_order(places: Places, rules: Rules) -> SortedPlan:
    """The plan in which tokens stand as they come."""
    order = torch.arange(places.length, dtype=torch.int32, device=places.device)[None, None, None]
    return SortedPlan(order, order, order, rules)
