"""Random blocks are drawn once and for all, where nothing else shows them."""

import pytest
import torch

from formers import Blocks, Global, PublishedBlocks, RandomBlocks
from formers.attention.pattern import Pattern
from formers.attention.plan import block_plan
from formers.places import Places, keys, queries
from formers.spec import Site

HEADS = 4
DRAWN = [[[33, 60, 10], [44, 11, 24], [37, 50, 39]], [[22, 39, 32], [8, 43, 4], [48, 15, 14]]]
ALL = RandomBlocks(4, 3, HEADS, length=80, before=1, after=2, first=2, last=1, seed=5)
EARLIER = RandomBlocks(4, 3, HEADS, among="earlier", before=2, first=1, seed=5)


def seen(pattern: Pattern, length: int, heads: int = HEADS) -> torch.Tensor:
    """(heads, length, length)."""
    at = Places.run(0, length)
    return pattern.visible(queries(at), keys(at), torch.arange(heads)[:, None, None]).expand(1, heads, -1, -1)[0]


def test_none_is_drawn_twice_nor_where_other_rules_show_it() -> None:
    table, own = ALL.drawn(20), torch.arange(20)[:, None]
    assert table.shape == (HEADS, 20, 3)
    assert table.min() >= 2 and table.max() <= 18
    assert ((table < own - 1) | (table > own + 2)).all()
    assert (table.sort().values.diff() > 0).all()


def test_a_decoder_draws_what_is_earlier_than_its_window() -> None:
    table, own = EARLIER.drawn(64), torch.arange(64)[:, None]
    assert ((table < own - 2) & (table >= 1) | (table == -1)).all()
    left = (own[:, 0] - 3).clamp(0, 3)
    assert torch.equal((table >= 0).sum(-1), left.expand(HEADS, -1))
    assert EARLIER.causal and not ALL.causal


def test_more_blocks_change_none_of_those_before() -> None:
    assert torch.equal(EARLIER.drawn(500)[:, :64], EARLIER.drawn(64))
    assert torch.equal(seen(EARLIER, 300)[:, :90, :90], seen(EARLIER, 90))


def test_what_is_drawn_is_a_function_of_the_fields() -> None:
    """Written down, so that a model which was saved goes on seeing what it was trained to see."""
    assert RandomBlocks(64, 3, 2, length=4096, seed=1).drawn(64)[:, [0, 30, 63]].tolist() == DRAWN
    assert torch.equal(ALL.drawn(20), ALL.replace().drawn(20))
    other = ALL.replace(seed=6).drawn(20)
    assert (ALL.drawn(20) != other).any()
    assert len({tuple(head.flatten().tolist()) for head in ALL.drawn(20)}) == HEADS


def test_every_block_is_drawn_as_often_as_the_others() -> None:
    pattern = RandomBlocks(1, 3, 2000, length=20)
    row = pattern.drawn(20)[:, 10]
    allowed = [block for block in range(1, 19) if abs(block - 10) > 1]
    counts = torch.bincount(row.flatten(), minlength=20)
    assert counts[allowed].sum() == 6000
    expected = 6000 / len(allowed)
    assert ((counts[allowed] - expected).abs() < 5 * expected**0.5).all()
    first = torch.bincount(row[:, 0], minlength=20)[allowed]
    assert ((first - 2000 / len(allowed)).abs() < 5 * (2000 / len(allowed)) ** 0.5).all()


@pytest.mark.parametrize("pattern", [ALL, EARLIER, ALL.replace(heads=3), EARLIER.replace(length=50)], ids=repr)
def test_what_is_seen_is_what_is_listed(pattern: RandomBlocks) -> None:
    length, shown = 100, seen(pattern, 100)
    table = pattern.drawn(pattern.blocks or 64).tolist()
    for head in range(HEADS):
        for q in range(length):
            row = table[head % pattern.heads][q // 4 : q // 4 + 1]
            blocks = row[0] if row else []  # past the length nothing is listed
            assert shown[head, q].nonzero()[:, 0].tolist() == [k for k in range(length) if k // 4 in blocks]
        assert torch.equal(seen(pattern.at_head(head), length, 1)[0], shown[head])


def test_where_fewer_are_left_all_are_seen() -> None:
    pattern = RandomBlocks(2, 9, length=12, before=0, after=0, first=1, last=1)
    expected = [[1, 2, 3, 4], [2, 3, 4], [1, 3, 4], [1, 2, 4], [1, 2, 3], [1, 2, 3, 4]]
    assert [sorted(set(row.tolist()) - {-1}) for row in pattern.drawn(6)[0]] == expected


def test_a_length_without_far_blocks_draws_none() -> None:
    assert not seen(RandomBlocks(4, 3, length=8), 8).any()


def test_what_is_drawn_no_more_need_not_be_kept() -> None:
    pattern = EARLIER.replace(count=1, heads=1, length=200)
    kept = pattern.keeps(torch.arange(200), torch.tensor([[0], [150], [190], [200]])).sum(1)
    assert kept[0] > kept[1] > kept[2] > kept[3] == 0
    assert EARLIER.keeps(torch.arange(200), torch.tensor([[199]])).all()


def test_a_plan_meets_the_listed_blocks_alone() -> None:
    pattern = RandomBlocks(64, 3, 12, length=16_384).at_head(7)
    at = Places.run(0, 16_384)
    groups = block_plan(pattern, at, at).groups
    assert sum(int((group.k_index[..., ::64] >= 0).sum()) for group in groups) == 3 * 256


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        (RandomBlocks(0, 3, length=8), "3 blocks of 0 positions show nothing"),
        (RandomBlocks(4, 0, length=8), "0 blocks of 4 positions show nothing"),
        (RandomBlocks(4, 3, 5, length=8), "there are tables for 5 heads, and heads are 4"),
        (RandomBlocks(4, 3, 2, 2, length=8), "head 2 is none of 2"),
        (RandomBlocks(4, 3), "all of a length that is not told"),
        (RandomBlocks(4, 3, length=0), "no blocks in a length of 0"),
        (RandomBlocks(4, 3, length=8, first=-1), "-1 blocks cannot be left out"),
        (RandomBlocks(4, 3, length=8, seed=-1), "seeds count from 0"),
        (PublishedBlocks(4, 3, length=44), "44 tokens is 11 blocks of 4, which that code attends to whole"),
        (PublishedBlocks(4, 1, length=44, seed=-2), "seeds count from 0"),
        (Global(0), "0 tokens are not seen by any"),
        (Global(2, -1), "no token stands at -1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(pattern: Pattern, told: str) -> None:
    assert any(told in what for what, _ in pattern.problems(Site(dim=8, heads=4)))


@pytest.mark.parametrize(
    "pattern", [ALL, EARLIER, PublishedBlocks(64, 3, 4), Blocks(4) | ALL.replace(head=3)], ids=repr
)
def test_what_is_right_is_not_complained_of(pattern: Pattern) -> None:
    assert not list(pattern.problems(Site(dim=8, heads=4)))
