"""What patterns say of themselves without looking pair by pair is on the safe side, in any order of the tokens."""

import pytest
import torch

from formers import Blocks, Canvas, Causal, Everything, Local1D, Local2D, Same, Window
from formers.attention.pattern import Pattern
from formers.attention.patterns.by_head import ByHead
from formers.attention.patterns.dilated import Dilated
from formers.attention.patterns.permuted import Permuted, Shifted
from formers.attention.patterns.published_blocks import PublishedBlocks
from formers.attention.patterns.random_blocks import RandomBlocks
from formers.attention.patterns.seen_by_all import Global, SeenByAll, SeesAll
from formers.attention.patterns.segments import Segments
from formers.attention.patterns.strided import Strided, Summary
from formers.attention.plan import block_plan
from formers.attention.span import BlockSpans, Span
from formers.places import Places, Spots, keys, queries

HEADS = torch.arange(4)[:, None, None]
BY_PLACE = [
    Segments(4, 3), Segments(5, 0), Causal() & Segments(3, 7),
    Everything(), Causal(), Window(5), Blocks(4), Blocks(4, 1, 2), Strided(1), Strided(6), Summary(6, 4, 2),
    Summary(5, 0, 1), Summary(2, 0, 2), Dilated(3, 4), Dilated(1, 3), Dilated(4, 1), Global(5), Permuted(5, 3, 0),
    Permuted(5, 3, 1), Permuted(4, 4, 3), Shifted(4, 1), Shifted(3, 4), Shifted(3, 0),
    Causal() & Strided(4), Causal() & (Window(3) | Strided(4)), Causal() & (Blocks(5) | Summary(5, 3, 2)),
    Causal() & (Window(1) | Summary(5, 3, 2)), Causal() & Shifted(4, 2), Causal() & Dilated(2, 5),
    ByHead((Window(2), Strided(3), Blocks(4))), Causal() & ByHead((Window(3), Global(2) | Window(4))),
    ByHead((Blocks(5), Permuted(5, 3, 1), Permuted(5, 3, 2))), Window(3) | Permuted(4, 2, 1),
    Global(3, 7), RandomBlocks(3, 2, 4, length=40), RandomBlocks(3, 2, 2, among="earlier"), RandomBlocks(4, 1, 4, 3, 30),
    Causal() & (Blocks(4) | RandomBlocks(4, 2, 4, length=40, among="earlier", before=0)), PublishedBlocks(3, 1, 4, length=30),
    Local1D(5, 3), Causal() & Local1D(4, 9), Local2D(Canvas(5, 4, 1, (2, 3)), 2, 1),
    Causal() & Local2D(Canvas(4, 5, 3, (2, 2)), 1, 2),
]  # fmt: skip
BY_MARK = [SeenByAll("m"), SeesAll("m"), Same("m"), Window(3) | SeenByAll("m") | SeesAll("m")]


def drawn(seed: int, count: int, block: int) -> tuple[Places, torch.Tensor]:
    """Two rows of places in no order, some of them padding, with a mark; and the indices of blocks, (N, block)."""
    chance = torch.Generator().manual_seed(seed)
    pos = torch.stack([torch.randperm(40, generator=chance)[:count] for _ in range(2)])
    if seed % 3 == 0:
        pos = pos.sort().values
    real = torch.rand(2, count, generator=chance) < 0.8
    mark = (torch.rand(2, count, generator=chance) < 0.3).long()
    index = torch.arange(-(-count // block) * block).view(-1, block)
    return Places(pos, real, {"m": mark}), index


def spans(places: Places, index: torch.Tensor, axis: int) -> BlockSpans:
    inside = index < places.length
    spots = Spots.of(places, lambda t: t[:, index.clamp(max=places.length - 1)])
    return BlockSpans(spots, inside & places.real[:, index.clamp(max=places.length - 1)], axis)


@pytest.mark.parametrize("pattern", [*BY_PLACE, *BY_MARK], ids=repr)
def test_blocks_are_reached_and_covered_on_the_safe_side(pattern: Pattern) -> None:
    reached = 0
    for seed in range(24):
        block = 1 + seed % 4
        (at, rows), (to, columns) = drawn(seed, 15, block), drawn(seed + 99, 18, 1 + seed % 3)
        q, k = spans(at, rows, 1), spans(to, columns, 0)
        both = at.real[:, None, :, None] & to.real[:, None, None, :]
        seen = pattern.visible(queries(at), keys(to), HEADS) & both
        reaches = pattern.reaches(q, k).expand(len(rows), len(columns))
        covers = torch.as_tensor(pattern.covers(q, k)).expand(len(rows), len(columns))
        for n, m in (~(q.empty | k.empty)).nonzero().tolist():
            r, c = rows[n][rows[n] < at.length], columns[m][columns[m] < to.length]
            part, pairs = seen[:, :, r][..., c], both[:, :, r][..., c].expand(2, seen.shape[1], -1, -1)
            reached += bool(reaches[n, m])
            assert reaches[n, m] or not part.any()
            assert not covers[n, m] or part[pairs].all()
    assert reached


@pytest.mark.parametrize("pattern", BY_PLACE, ids=repr)
def test_single_pairs_are_bounded_exactly(pattern: Pattern) -> None:
    """Blocks of one place in one row leave nothing to be unsure of."""
    at, index = Places.run(0, 31), torch.arange(31)[:, None]
    spots, real = Spots.of(at, lambda t: t[:, index]), torch.ones(1, 31, 1, dtype=torch.bool)
    q, k = BlockSpans(spots, real, 1), BlockSpans(spots, real, 0)
    seen = pattern.visible(queries(at), keys(at), HEADS).expand(1, -1, 31, 31)[0]
    assert torch.equal(pattern.reaches(q, k).expand(31, 31), seen.any(0))
    covers = torch.as_tensor(pattern.covers(q, k)).expand(31, 31)
    if "Dilated" in repr(pattern):  # more than one key of a dilated window is never seen by all, so it does not look
        assert not covers.any()
    else:
        assert torch.equal(covers, seen.all(0))


@pytest.mark.parametrize("pattern", BY_PLACE, ids=repr)
def test_spans_of_plain_numbers_are_covered_on_the_safe_side(pattern: Pattern) -> None:
    at = Places.run(0, 24)
    seen = pattern.visible(queries(at), keys(at), HEADS).expand(1, -1, 24, 24)[0].all(0)
    for q_lo in range(0, 24, 3):
        for q_hi in range(q_lo, 24, 4):
            for k_lo in range(0, 24, 3):
                for k_hi in range(k_lo, 24, 5):
                    covered = pattern.covers(Span(q_lo, q_hi), Span(k_lo, k_hi))
                    assert not covered or seen[q_lo : q_hi + 1, k_lo : k_hi + 1].all()


@pytest.mark.parametrize("pattern", BY_PLACE, ids=repr)
def test_what_a_pattern_keeps_is_all_that_is_seen_later(pattern: Pattern) -> None:
    length, far = 48, 96
    at, to = Places.run(0, far), Places.run(0, length)
    seen = pattern.visible(queries(at), keys(to), HEADS).expand(1, -1, far, length)[0].any(0)
    if pattern.causal:
        assert not seen[:length].triu(1).any()
    if pattern.horizon is not None:
        assert not seen.tril(-pattern.horizon).any()
    pos, after = torch.arange(length), torch.arange(far)[:, None]
    keeps = pattern.keeps(pos, after).expand(far, length)
    later = seen.flip(0).cummax(0).values.flip(0)  # [after, pos]: some query at `after` or behind it sees the key
    assert not (later & ~keeps).any()


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            Permuted(5, 3, 1),
            Permuted(4, 4, 3),
            Shifted(4, 1),
            Shifted(3, 4),
            Summary(6, 4, 2),
            Global(5),
            Global(4, 6),
        ),
        *(
            RandomBlocks(3, 2, 3, length=80),
            RandomBlocks(5, 1, length=80, among="earlier"),
            PublishedBlocks(3, 2, 4, length=42),
        ),
    ],
    ids=repr,
)
def test_some_patterns_keep_exactly_what_is_seen_later(pattern: Pattern) -> None:
    length, far = 36, 120
    at, to = Places.run(0, far), Places.run(0, length)
    seen = pattern.visible(queries(at), keys(to), HEADS).expand(1, -1, far, length)[0].any(0)
    later = seen.flip(0).cummax(0).values.flip(0)[:60]
    assert torch.equal(pattern.keeps(torch.arange(length), torch.arange(60)[:, None]).expand(60, length), later)


@pytest.mark.parametrize("pattern", [Strided(8), Summary(8, 6, 2), Dilated(4, 8)], ids=repr)
def test_an_order_makes_few_blocks_of_a_pattern(pattern: Pattern) -> None:
    """Sorted as the pattern says, blocks of 8 that are reached are as few as the pairs allow, to a factor of 2."""
    at = Places.run(0, 64)
    order = {"q": pattern.query_order(Spots.of(at, lambda t: t)), "k": pattern.key_order(Spots.of(at, lambda t: t))}
    sorted_by = {
        side: torch.arange(64) if told is None else told[0].argsort(stable=True) for side, told in order.items()
    }
    shuffled = {side: Places(index[None]) for side, index in sorted_by.items()}
    pairs = int(pattern.visible(queries(at), keys(at), HEADS).sum())
    plan = block_plan(pattern, shuffled["q"], shuffled["k"], 8)
    plain = block_plan(pattern, at, at, 8)
    assert plan.pairs <= 2 * pairs
    assert plan.pairs < plain.pairs
