"""The plans of a whole call: for each head, and where rows stand differently for each row, which blocks are visited."""

from typing import NamedTuple

import torch
from torch import Tensor

from formers.attention.marks import asks_for_marks
from formers.attention.pattern import Pattern, by_heads
from formers.attention.visits.plan import HeadPlan, plan_run, plan_spots
from formers.cached import cached
from formers.native.visits import Table, View
from formers.places import Places, Spots


class Visits(NamedTuple):
    """A table of plans, and which keys are no padding (B, S), where the plans do not know; None: all that they show.

    pairs: how many each head sees, padding among them; None where rows are planned one by one.
    """

    table: Table
    real: Tensor | None
    pairs: tuple[int, ...] | None = None


@torch.compiler.disable  # it looks at numbers, and a compiled model takes the plan as it comes
def plan_visits(pattern: Pattern, at: Places, to: Places, heads: int) -> Visits:
    """The plans of so many heads for queries at `at` and keys at `to`."""
    begin, first = _start(at), _start(to)
    marked = bool(at.marks or to.marks) and asks_for_marks(pattern)
    if not marked and begin is not None and first is not None:
        return _visits_of_runs(pattern, heads, begin, at.length, first, to.length)._replace(real=to.real)
    kinds = by_heads(pattern, heads)
    plans: list[HeadPlan] = []
    which: list[list[int]] = []
    for row in range(max(_rows(at), _rows(to))):
        which.append([len(plans) + number for number in _numbers(kinds, heads)])
        plans += [_plan_row(each, at, to, row, marked=marked) for each in kinds]
    return Visits(_table(plans, which, at.length), None)


@cached(64)
def _visits_of_runs(pattern: Pattern, heads: int, begin: int, length: int, first: int, count: int) -> Visits:
    """Of `length` queries from position `begin` on and `count` keys from `first` on, the same in all rows."""
    kinds = by_heads(pattern, heads)
    plans = [plan_run(each, begin, length, first, count) for each in kinds]
    table = _table(plans, [_numbers(kinds, heads)], length)
    return Visits(table, None, tuple(plan.pairs for plan in plans))


def _numbers(kinds: dict[Pattern, list[int]], heads: int) -> list[int]:
    """Which of the kinds each head is of."""
    number = {head: kind for kind, which in enumerate(kinds.values()) for head in which}
    return [number[head] for head in range(heads)]


def _plan_row(pattern: Pattern, at: Places, to: Places, row: int, *, marked: bool) -> HeadPlan:
    """Of the real tokens of one row."""
    (queries, q), (keys, k) = (_real(side, row) for side in (at, to))
    if not len(queries) or not len(keys):
        return HeadPlan((), 1, 0)
    if not marked and _is_run(q.pos) and _is_run(k.pos):
        plan = plan_run(pattern, int(q.pos[0]), len(queries), int(k.pos[0]), len(keys))
    else:
        plan = plan_spots(pattern, q, k)
    return plan.moved(queries.int(), keys.int())


def _real(places: Places, row: int) -> tuple[Tensor, Spots]:
    """The tokens of a row that are no padding, and where they stand."""
    tokens = torch.arange(places.length)
    if places.real is not None:
        tokens = tokens[places.real[min(row, len(places.real) - 1)]]
    return tokens, Spots.of(places, lambda t: t[min(row, len(t) - 1)][tokens])


def _start(places: Places) -> int | None:
    """Where the first token of every row stands, if all stand one behind the other and padding comes last."""
    if places.start is not None:
        return places.start
    if places.real is None or not bool(places.real[:, 0].all()):
        return None
    start = int(places.pos[0, 0])
    run = torch.arange(start, start + places.length, device=places.device)
    stands = (places.pos == run) | ~places.real
    return start if bool(stands.all()) else None


def _is_run(pos: Tensor) -> bool:
    return int(pos[-1]) - int(pos[0]) == len(pos) - 1


def _rows(places: Places) -> int:
    return max([1, *(len(t) for t in (places.real, *places.marks.values()) if t is not None)])


def _table(plans: list[HeadPlan], which: list[list[int]], length: int) -> Table:
    views = [plan.views for plan in plans]
    merged = any(len(each) != 1 or _count(each[0]) != length for each in views)
    return Table(views, torch.tensor(which), merged, max(plan.places for plan in plans))


def _count(view: View) -> int:
    """How many queries stand in it."""
    return int((view.queries >= 0).sum())
