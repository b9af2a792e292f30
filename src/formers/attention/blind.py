"""Queries that would see nothing: found when a model is checked, and not as zeros that nobody asked for."""

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from formers.attention.marks import asks_for_marks
from formers.attention.pattern import Both, Pattern, by_heads
from formers.attention.patterns.dilated import Dilated
from formers.places import Spots
from formers.spec.core import Site, parts_within

LEAST, MOST = 512, 2048  # positions that are looked at: 4 horizons, but no less and no more
FURTHEST = 16_384  # positions ahead of them that a query of an encoder may look for a key
ROWS = 256  # queries that are looked at together
HEAD = torch.zeros(1, dtype=torch.int64)  # patterns of one head do not ask for it


def blind_problems(pattern: Pattern, site: Site) -> Iterator[tuple[str, str]]:
    """What is wrong with a pattern at a site inside attention: queries that see nothing, dilation that shows nothing.

    Texts are taken to be long enough, and nothing is told of patterns that go by marks, which only the input knows.
    """
    for seen in parts_within(pattern):
        if any(True for _ in seen.problems(site)):
            return  # what means nothing by itself shows nothing, and is told elsewhere
    for step, horizon in dict.fromkeys(_dilations(pattern)):
        what = f"every {step}th key is to be seen, and none that is {horizon} back or further"
        yield f"{what}: a query would meet no key but its own", f"step={max(1, horizon // 2)}"
    if asks_for_marks(pattern):
        return
    found = [(first_blind(each), which[0]) for each, which in by_heads(pattern, site.heads).items()]
    blind = min(((place, head) for place, head in found if place is not None), default=None)
    if blind is not None:
        whose = "a query" if len(found) == 1 else f"a query of head {blind[1]}"
        own = "Causal() & Window(1)" if site.causal else "Window(1)"
        yield f"{whose} at position {blind[0]} sees no key under {pattern!r}", f"pattern=({pattern!r}) | {own}"


@lru_cache(maxsize=256)
def first_blind(pattern: Pattern) -> int | None:
    """The first position whose query sees nothing under the pattern of one head; None: not among those looked at."""
    horizon = pattern.horizon or 0
    count = min(MOST, max(LEAST, 4 * horizon))
    ahead = 0 if pattern.causal else max(horizon, LEAST)
    if ahead > FURTHEST:
        return None
    with torch.device("cpu"):  # a spec is also checked while its model is built without memory
        return _first_blind(pattern, torch.arange(count), torch.arange(count + ahead))


def _first_blind(pattern: Pattern, queries: Tensor, keys: Tensor) -> int | None:
    count = len(queries)
    alone = pattern.visible(Spots(queries, {}), Spots(queries, {}), HEAD).expand(count)  # nearly all see their own key
    for rows in queries[~alone].split(ROWS):
        seen = pattern.visible(Spots(rows[:, None], {}), Spots(keys, {}), HEAD).expand(len(rows), len(keys))
        blind = rows[~seen.any(1)]
        if len(blind):
            return int(blind[0])
    return None


def _dilations(pattern: Pattern) -> Iterator[tuple[int, int]]:
    """The step of each dilation under a rule that shows nothing one step back, and how far that rule reaches."""
    for part in parts_within(pattern):
        rules = tuple(_joint(part)) if isinstance(part, Both) else ()
        horizon = min((rule.horizon for rule in rules if rule.horizon is not None), default=None)
        steps = [rule.step for rule in rules if isinstance(rule, Dilated) and rule.size > 1]
        yield from ((step, horizon) for step in steps if step > 1 and horizon is not None and horizon <= step)


def _joint(pattern: Pattern) -> Iterator[Pattern]:
    """The rules that must all hold."""
    if isinstance(pattern, Both):
        yield from _joint(pattern.left)
        yield from _joint(pattern.right)
    else:
        yield pattern
