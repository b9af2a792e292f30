"""Any pattern, plan, block size, offset and padding gives what the dense oracle gives."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from formers import Blocks, Causal, Everything, NoPosition, Window
from formers.attention.oracle import attend_dense
from formers.attention.pattern import Pattern
from formers.attention.patterns.by_head import ByHead
from formers.attention.patterns.dilated import Dilated
from formers.attention.patterns.permuted import Permuted, Shifted
from formers.attention.patterns.random_blocks import RandomBlocks
from formers.attention.patterns.seen_by_all import Global
from formers.attention.patterns.segments import Segments
from formers.attention.patterns.strided import Strided, Summary
from formers.attention.plan import Plan, Tiles, block_plan, dense_plan
from formers.attention.span import BlockSpans, Span
from formers.attention.tiles import attend_tiles
from formers.places import Places, Spots, keys, queries
from formers.spec import Site

LEAVES = st.one_of(
    st.just(Causal()),
    st.just(Everything()),
    st.integers(1, 12).map(Window),
    st.builds(Blocks, st.integers(1, 9), st.integers(0, 2), st.integers(0, 2)),
    st.integers(1, 9).map(Strided),
    st.builds(lambda first, count, rest: Summary(first + count + rest, first, count), *[st.integers(0, 4)] * 3).filter(
        lambda summary: summary.count > 0
    ),
    st.builds(Dilated, st.integers(1, 6), st.integers(1, 5)),
    st.integers(1, 9).map(Global),
    st.builds(lambda size, blocks, shift: Permuted(size, blocks, shift % blocks), *[st.integers(1, 6)] * 3),
    st.builds(Segments, st.integers(1, 7), st.integers(0, 9)),
    st.builds(Shifted, st.integers(1, 6), st.integers(0, 4)),
    st.builds(RandomBlocks, *[st.integers(1, 4)] * 3, length=st.integers(1, 50), seed=st.integers(0, 9)),
    st.builds(
        RandomBlocks,
        *[st.integers(1, 4)] * 3,
        length=st.none() | st.integers(1, 50),
        among=st.just("earlier"),
        first=st.integers(0, 2),
    ),
)
PATTERNS = st.recursive(
    LEAVES,
    lambda t: st.one_of(
        st.tuples(t, t).map(lambda p: p[0] & p[1]),
        st.tuples(t, t).map(lambda p: p[0] | p[1]),
        st.lists(t, min_size=1, max_size=3).map(tuple).map(ByHead),
    ),
    max_leaves=5,
)
HEAD = torch.arange(3)[:, None, None]
PLAIN = NoPosition().build(Site(dim=24, heads=3, head_dim=8))


def qkv(q_len: int, k_len: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, n, 8, generator=generator) for n in (q_len, k_len, k_len)]


def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pattern: Pattern, at: Places, to: Places, block: int):
    plan = block_plan(pattern, at, to, block) if block else dense_plan(at.length, to.length)
    return attend_tiles(q, k, v, plan, at=at, to=to, pattern=pattern, position=PLAIN, scale=8**-0.5)


@given(pattern=PATTERNS, length=st.integers(1, 40), block=st.integers(0, 16), offset=st.integers(0, 50))
@settings(max_examples=200, deadline=None)
def test_any_pattern_equals_the_dense_oracle(pattern: Pattern, length: int, block: int, offset: int) -> None:
    q, k, v = qkv(length, length)
    at = Places.run(offset, length)
    out, _ = run(q, k, v, pattern, at, at, block)
    mask = pattern.visible(queries(at), keys(at), HEAD)
    torch.testing.assert_close(out, attend_dense(q, k, v, mask))


@given(
    pattern=PATTERNS,
    q_len=st.integers(1, 20),
    k_len=st.integers(1, 30),
    block=st.integers(0, 9),
    seed=st.integers(0, 99),
)
@settings(max_examples=200, deadline=None)
def test_ragged_rows_equal_the_dense_oracle(pattern: Pattern, q_len: int, k_len: int, block: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    real = [torch.rand(2, n, generator=generator) < 0.7 for n in (q_len, k_len)]
    at, to = (Places((r.cumsum(1) - 1).clamp(min=0), r) for r in real)
    q, k, v = qkv(q_len, k_len, seed)
    out, lse = run(q, k, v, pattern, at, to, block)
    mask = pattern.visible(queries(at), keys(to), HEAD) & real[1][:, None, None, :]
    keep = real[0][:, None, :, None].expand_as(out)
    torch.testing.assert_close(out[keep], attend_dense(q, k, v, mask)[keep])
    scores = (q @ k.mT * 8**-0.5).masked_fill(~mask, float("-inf"))
    torch.testing.assert_close(lse[keep[..., 0]], scores.logsumexp(-1)[keep[..., 0]])


@given(pattern=PATTERNS, length=st.integers(2, 30))
@settings(max_examples=200, deadline=None)
def test_what_a_pattern_says_of_itself_is_true(pattern: Pattern, length: int) -> None:
    at = Places.run(0, length)
    visible = pattern.visible(queries(at), keys(at), HEAD).expand(1, 3, length, length)[0]
    if pattern.causal:
        assert not visible.triu(1).any()
    if pattern.horizon is not None:
        assert not visible.tril(-pattern.horizon).any()
    for head in range(3):
        assert torch.equal(pattern.at_head(head).visible(queries(at), keys(at), HEAD[:1])[0, 0], visible[head])
    for start in range(0, length, 3):
        part = visible[:, start:, : start + 1]
        q, k = (spans(at, slice(*ends), axis) for ends, axis in (((start, length), 1), ((0, start + 1), 0)))
        if pattern.covers(q, k):
            assert part.all()
        if pattern.covers(Span(start, length - 1), Span(0, start)):
            assert part.all()
        if not pattern.reaches(q, k):
            assert not part.any()
        keeps = pattern.keeps(at.pos, torch.tensor(start)).expand(1, length)[0]
        assert not (visible[:, start:] & ~keeps).any()


def spans(at: Places, which: slice, axis: int) -> BlockSpans:
    """Some of the places as one block."""
    spots = Spots.of(at, lambda t: t[:, None, which])
    return BlockSpans(spots, torch.ones_like(spots.pos, dtype=torch.bool), axis)


def halves(length: int) -> Plan:
    """A plan that meets each query twice, with one half of the keys and then with the other."""
    rows = torch.arange(length).expand(1, 1, 2, -1)
    columns = torch.arange(length + length % 2).view(1, 1, 2, -1)
    return Plan((Tiles(rows, torch.where(columns < length, columns, -1)),))


@pytest.mark.parametrize("plan", ["dense", "blocks", "halves"])
def test_gradients_through_tiles_are_the_oracles(plan: str) -> None:
    pattern, at = Causal() & (Window(4) | Blocks(3)), Places.run(0, 13)
    plans = {"dense": dense_plan(13, 13), "blocks": block_plan(pattern, at, at, 4), "halves": halves(13)}
    q, k, v = (x.requires_grad_() for x in qkv(13, 13))
    out, lse = attend_tiles(q, k, v, plans[plan], at=at, to=at, pattern=pattern, position=PLAIN, scale=8**-0.5)
    mask = pattern.visible(queries(at), keys(at), HEAD)
    wanted = attend_dense(q, k, v, mask)
    wanted_lse = (q @ k.mT * 8**-0.5).masked_fill(~mask, float("-inf")).logsumexp(-1)
    torch.testing.assert_close((out, lse), (wanted, wanted_lse))
    a, b = torch.randn_like(out), torch.randn_like(lse)
    ours = torch.autograd.grad((out * a).sum() + (lse * b).sum(), (q, k, v))
    theirs = torch.autograd.grad((wanted * a).sum() + (wanted_lse * b).sum(), (q, k, v))
    torch.testing.assert_close(ours, theirs)


def test_a_query_that_sees_nothing_gets_zero_and_no_gradient() -> None:
    at = Places(torch.arange(4)[None], torch.zeros(2, 4, dtype=torch.bool))
    q, k, v = (x.requires_grad_() for x in qkv(4, 4))
    for block in (0, 2):
        out, lse = run(q, k, v, Everything(), at, at, block)
        assert not out.any()
        assert lse.isneginf().all()
        if out.requires_grad:
            gradients = torch.autograd.grad(out.sum(), (q, k, v))
            assert not any(g.any() for g in gradients)
