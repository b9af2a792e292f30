"""What patterns show, pair by pair, against their definitions written out as loops."""

import itertools
from collections.abc import Callable

import pytest
import torch

from formers import Blocks, Causal, Window
from formers.attention.pattern import Pattern
from formers.attention.patterns.by_head import ByHead
from formers.attention.patterns.dilated import Dilated
from formers.attention.patterns.permuted import Permuted, Shifted
from formers.attention.patterns.seen_by_all import Global, SeenByAll, SeesAll
from formers.attention.patterns.segments import Segments
from formers.attention.patterns.strided import Strided, Summary
from formers.places import Places, keys, queries
from formers.spec import Site
from formers.spec.core import parts_within

START, LENGTH, HEADS = 3, 29, 4
CYCLE = (2, 0, 1)  # of Permuted(4, 3, shift=2): block 0 sees block 2, ...


def shown(pattern: Pattern, marks: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
    """(1 or H, LENGTH, LENGTH)."""
    at = Places.run(START, LENGTH, marks=marks)
    heads = torch.arange(HEADS)[:, None, None]
    return pattern.visible(queries(at), keys(at), heads).expand(1, -1, LENGTH, LENGTH)[0]


DEFINITIONS: dict[Pattern, Callable[[int, int], bool]] = {
    Strided(5): lambda q, k: (q - k) % 5 == 0,
    Strided(1): lambda q, k: True,
    Causal() & Strided(4): lambda q, k: k in range(q, -1, -4),
    Summary(6, 4, 2): lambda q, k: k % 6 in (4, 5),
    Summary(6, 0, 1): lambda q, k: k % 6 == 0,
    Summary(3, 0, 3): lambda q, k: True,
    Causal() & (Summary(6, 4, 2) | Window(1)): lambda q, k: q == k or (k < q and k % 6 >= 4),
    Dilated(3, 4): lambda q, k: q - k in (-8, -4, 0, 4, 8),
    Dilated(5, 1): lambda q, k: abs(q - k) < 5,
    Causal() & Dilated(2, 7): lambda q, k: q - k in (0, 7),
    Global(5): lambda q, k: q < 5 or k < 5,
    Global(5, 7): lambda q, k: 7 <= q < 12 or 7 <= k < 12,
    Causal() & Global(5): lambda q, k: k <= q and (q < 5 or k < 5),
    Permuted(4, 3, 0): lambda q, k: q // 4 == k // 4,
    Permuted(4, 3, 2): lambda q, k: k // 4 == q // 12 * 3 + CYCLE[q // 4 % 3],
    Permuted(100, 2, 1): lambda q, k: False,
    Shifted(4, 2): lambda q, k: k // 4 == (q // 4 - 2 if q // 4 >= 2 else q // 4),
    Shifted(4, 0): lambda q, k: q // 4 == k // 4,
    Segments(5, 0): lambda q, k: q // 5 == k // 5,
    Segments(4, 6): lambda q, k: q // 4 * 4 - 6 <= k < q // 4 * 4 + 4,
    Causal() & Segments(1, 3): lambda q, k: q - 3 <= k <= q,
    Causal() & Segments(6, 12): lambda q, k: k in [*range(q // 6 * 6 - 12, q // 6 * 6), *range(q // 6 * 6, q + 1)],
    Causal() & Shifted(3, 1): lambda q, k: k // 3 == q // 3 - 1 if q >= 3 else k <= q,
}


@pytest.mark.parametrize("pattern", DEFINITIONS, ids=repr)
def test_a_pattern_shows_what_its_definition_says(pattern: Pattern) -> None:
    seen, says = shown(pattern), DEFINITIONS[pattern]
    for q, k in itertools.product(range(LENGTH), repeat=2):
        assert (seen[:, q, k] == says(q + START, k + START)).all(), (q + START, k + START)


def test_the_strided_and_the_fixed_pattern_are_those_of_the_paper() -> None:
    """arXiv:1904.10509, section 4.3, but for its first set of the strided pattern, which has l keys here and in its code."""
    stride, c = 5, 2
    first = {i: {j for j in range(i + 1) if i - j < stride} for i in range(30)}
    second = {i: {j for j in range(i + 1) if (i - j) % stride == 0} for i in range(30)}
    own = {i: {j for j in range(i + 1) if j // stride == i // stride} for i in range(30)}
    cells = {i: {j for j in range(i + 1) if j % stride in range(stride - c, stride)} for i in range(30)}
    at = Places.run(0, 30)
    others = Window(stride), Strided(stride), Blocks(stride), Summary(stride, stride - c, c)
    for pattern, sets in zip(others, (first, second, own, cells), strict=True):
        seen = (Causal() & pattern).visible(queries(at), keys(at), torch.arange(1))[0, 0]
        assert {q: set(seen[q].nonzero().flatten().tolist()) for q in range(30)} == sets


def test_marks_are_seen_or_see() -> None:
    mark = (torch.arange(LENGTH) % 7 == 2).long()[None] * 2
    for q, k in itertools.product(range(LENGTH), repeat=2):
        assert shown(SeenByAll("m"), {"m": mark})[0, q, k] == (k % 7 == 2)
        assert shown(SeesAll("m"), {"m": mark})[0, q, k] == (q % 7 == 2)
    for pattern in (SeenByAll("m"), SeesAll("m")):
        with pytest.raises(ValueError, match=r"marks=\{'m': \.\.\.\}"):
            shown(pattern)


@pytest.mark.parametrize(
    "pattern",
    [ByHead((Window(2), Strided(3), Blocks(4))), Causal() & ByHead((Window(2), Global(4) & Blocks(9)))],
    ids=repr,
)
def test_heads_take_their_patterns_in_turn(pattern: Pattern) -> None:
    seen = shown(pattern)
    (by_head,) = (part for part in parts_within(pattern) if isinstance(part, ByHead))
    assert len(seen) == HEADS and len(seen.unique(dim=0)) == len(by_head.patterns)
    for head in range(HEADS):
        alone = pattern.at_head(head)
        assert torch.equal(shown(alone), seen[head : head + 1])
        assert alone.at_head(1) == alone


def test_patterns_that_mean_nothing_are_refused() -> None:
    site = Site(dim=8, heads=2)
    wrong = {
        Strided(0): "multiple of 0",
        Summary(4, 3, 2): "places 0 to 3, and 3 to 4",
        Summary(4, 1, 0): "places 0 to 3",
        Dilated(0, 2): "sees nothing",
        Dilated(3, 0): "sees nothing",
        Global(0): "not seen by any",
        Permuted(0, 2, 1): "hold nothing",
        Permuted(4, 0): "cannot be permuted",
        Permuted(4, 2, 2): "shifted by 0 to 1, not by 2",
        Shifted(4, -1): "further on",
        ByHead(()): "no pattern",
        ByHead((Window(2), Window(3), Window(4))): "3 patterns and 2 heads",
    }
    for pattern, what in wrong.items():
        assert any(what in told for told, mend in pattern.problems(site)), pattern
    for pattern in (*DEFINITIONS, ByHead((Window(2), Window(3)))):
        assert not list(pattern.problems(site))
