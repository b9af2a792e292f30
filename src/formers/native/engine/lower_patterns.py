"""Rules for patterns: the words of source/pattern.h, under which attention meets visible keys and no others."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from formers.attention.pattern import Blocks, Both, Causal, Either, Everything, Pattern, Window
from formers.attention.patterns.chosen_blocks import NOTHING, ChosenBlocks
from formers.attention.patterns.dilated import Dilated
from formers.attention.patterns.image_blocks import Local1D, Local2D
from formers.attention.patterns.permuted import Permuted, Shifted
from formers.attention.patterns.published_blocks import PublishedBlocks
from formers.attention.patterns.random_blocks import RandomBlocks
from formers.attention.patterns.seen_by_all import Global
from formers.attention.patterns.segments import Segments
from formers.attention.patterns.strided import Strided, Summary
from formers.errors import NoRuleError
from formers.places import Places, keys, queries

Words = tuple[int, ...]  # none: all keys up to the query's own
Rule = Callable[[Any, int | None], Words]

# In the order of `PatternWord`.
WINDOW, BLOCKS, STRIDED, SUMMARY, GLOBAL, SHIFTED, PERMUTED, LISTED, BOTH, EITHER = range(10)
_RULES: dict[type[Pattern], Rule] = {}


def pattern_rule(kind: type[Pattern]) -> Callable[[Rule], Rule]:
    """Decorates the rule for this very type: what it shows of the keys up to the query's own, the same for all heads.

    It is given the pattern, and how many positions there are at most, where that is known.
    """

    def register(rule: Rule) -> Rule:
        _RULES[kind] = rule
        return rule

    return register


def pattern_ints(pattern: Pattern, heads: int, place: int, length: int | None) -> list[int]:
    """What a layer's heads see, as `attend` reads it from its ints, in which this begins at `place`. length: positions that
    there are at most; None: any number.

    Raises NoRuleError, naming it, for a pattern that is not causal, or of which some part has no rule.
    """
    if not pattern.causal:
        raise NoRuleError(f"the native engine has no rule for the pattern {pattern!r}, which is not causal")
    by_head = [_words(pattern.at_head(head), pattern, length) for head in range(heads)]
    places: dict[Words, int] = {}
    words: list[int] = []
    for each in dict.fromkeys(by_head):
        places[each] = place + heads + len(words)
        words += [len(each), *each]
    return [*(places[each] for each in by_head), *words]


def _words(part: Pattern, whole: Pattern, length: int | None) -> Words:
    if type(part) in (Both, Either):
        left, right = (_words(side, whole, length) for side in (part.left, part.right))  # type: ignore[attr-defined]
        if type(part) is Either:
            return (*left, *right, EITHER) if left and right else ()
        return (*left, *right, BOTH) if left and right else left or right
    rule = _RULES.get(type(part))
    if rule is None:
        named = "" if part == whole else f", of which {part!r} is a part"
        raise NoRuleError(f"the native engine has no rule for the pattern {whole!r}{named}")
    return rule(part, length)


@pattern_rule(Everything)
@pattern_rule(Causal)
def _(pattern: Pattern, length: int | None) -> Words:
    return ()


@pattern_rule(Window)
def _(pattern: Window, length: int | None) -> Words:
    return WINDOW, pattern.size


@pattern_rule(Blocks)
def _(pattern: Blocks, length: int | None) -> Words:
    return BLOCKS, pattern.size, pattern.before * pattern.size


@pattern_rule(Strided)
def _(pattern: Strided, length: int | None) -> Words:
    return (STRIDED, pattern.stride) if pattern.stride > 1 else ()


@pattern_rule(Summary)
def _(pattern: Summary, length: int | None) -> Words:
    return (SUMMARY, pattern.size, pattern.first, pattern.count) if pattern.count < pattern.size else ()


@pattern_rule(Dilated)
def _(pattern: Dilated, length: int | None) -> Words:
    window = WINDOW, pattern.size * pattern.step
    return (*window, STRIDED, pattern.step, BOTH) if pattern.step > 1 else window


@pattern_rule(Global)
def _(pattern: Global, length: int | None) -> Words:
    return GLOBAL, pattern.count, pattern.first


@pattern_rule(Local1D)
@pattern_rule(Segments)
def _(pattern: Local1D, length: int | None) -> Words:
    return BLOCKS, pattern.size, pattern.memory


@pattern_rule(Shifted)
def _(pattern: Shifted, length: int | None) -> Words:
    return SHIFTED, pattern.size, pattern.back


@pattern_rule(Permuted)
def _(pattern: Permuted, length: int | None) -> Words:
    return PERMUTED, pattern.size, pattern.blocks, pattern.shift


@pattern_rule(PublishedBlocks)
@pattern_rule(RandomBlocks)
def _(pattern: ChosenBlocks, length: int | None) -> Words:
    blocks = pattern.blocks
    if blocks is None:
        if length is None:
            raise NoRuleError(
                f"the native engine has no rule for {pattern!r} without end: give the pattern, or the model, a length"
            )
        blocks = -(-length // pattern.size)
    rows = pattern.drawn(blocks)[pattern.head or 0].tolist()
    size = pattern.size
    return _listed(
        size, [[(b * size, (b + 1) * size) for b in sorted(set(row)) if b != NOTHING] for row in rows], again=False
    )


@pattern_rule(Local2D)
def _(pattern: Local2D, length: int | None) -> Words:
    canvas, image = pattern.canvas, Places.run(0, pattern.canvas.length)
    height, width = canvas.block or (1, 1)
    whole = canvas.height % height == 0 and canvas.width % width == 0
    size = height * width * canvas.channels if whole else 1  # queries that see alike, but for what is ahead of them
    rows = []
    for first in range(0, canvas.length, size):
        at = queries(Places.run(first, 1)), keys(image)
        seen = pattern.visible(*at, at[0].pos.new_zeros(1, 1, 1)).flatten()
        rows.append(_runs(seen[: first + size]))
    return _listed(size, rows, again=True)


def _runs(seen: Tensor) -> list[tuple[int, int]]:
    """Where keys (S,), bool, are seen: the first of each run, and the end behind it."""
    edge = seen.new_zeros(1)
    turns: list[int] = torch.cat([edge, seen, edge]).long().diff().nonzero()[:, 0].tolist()
    return list(zip(turns[::2], turns[1::2], strict=True))


def _listed(size: int, rows: Sequence[Sequence[tuple[int, int]]], *, again: bool) -> Words:
    """Rows of queries, `size` in each, and the runs that they see. again: behind the last row the first one follows."""
    offsets = [0, *accumulate(map(len, rows))]
    return LISTED, size, len(rows), int(again), *offsets, *(end for row in rows for run in row for end in run)
