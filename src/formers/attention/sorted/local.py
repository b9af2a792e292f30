"""Patterns that are local in the order of the sequence, as plans of sorted chunks: nothing has to be sorted."""

from collections.abc import Iterator

import torch

from formers.attention.pattern import Blocks, Both, Causal, Everything, Pattern, Window
from formers.attention.sorted.plan import Rules, SortedPlan
from formers.places import Places

CHUNK = 64  # queries of a tile, where the pattern has no blocks of its own


def local_rules(pattern: Pattern, start: int) -> Rules | None:
    """The rules of one round of the tokens from `start` on, as they stand; None where the pattern is not so simple."""
    leaves = list(_joined(pattern))
    causal = any(type(leaf) is Causal for leaf in leaves)
    others = [leaf for leaf in leaves if type(leaf) not in (Causal, Everything)]
    if len(others) != 1:
        return None
    (shape,) = others
    if isinstance(shape, Window):
        side = -(-(shape.size - 1) // CHUNK)
        return Rules(CHUNK, side, 0 if causal else side, reach=shape.size)
    if isinstance(shape, Blocks) and start % shape.size == 0:
        return Rules(shape.size, shape.before, 0 if causal else shape.after)
    return None


def local_plan(rules: Rules, places: Places) -> SortedPlan:
    """Every token in the slot where it stands."""
    order = torch.arange(places.length, dtype=torch.int32, device=places.device)[None, None, None]
    return SortedPlan(order, order, order, rules)


def is_causal(pattern: Pattern) -> bool:
    """Whether a pattern that `local_rules` knows, or Causal() itself, bars later keys."""
    return any(type(leaf) is Causal for leaf in _joined(pattern))


def _joined(pattern: Pattern) -> Iterator[Pattern]:
    if isinstance(pattern, Both):
        yield from _joined(pattern.left)
        yield from _joined(pattern.right)
    else:
        yield pattern
