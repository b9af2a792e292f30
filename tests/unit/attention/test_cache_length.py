"""What a cache keeps: no more than the pattern may show again, and enough for steps to equal one pass."""

import pytest
import torch

from formers import Attention, Blocks, Causal, Window
from formers.attention.pattern import Pattern
from formers.attention.patterns.by_head import ByHead
from formers.attention.patterns.dilated import Dilated
from formers.attention.patterns.seen_by_all import Global
from formers.attention.patterns.strided import Strided, Summary
from formers.call import Call
from formers.memory import PERIOD
from formers.places import Places
from formers.spec.core import Site

LENGTH = 3 * PERIOD + 10
FIXED = Causal() & (Blocks(32) | Summary(32, 28, 4))
# The most keys that are needed behind LENGTH tokens; up to PERIOD more may stand in the cache until they are looked for.
NEEDED = {
    "window": (Causal() & Window(20), 19),
    "dilated": (Causal() & Dilated(5, 3), 14),
    "fixed": (FIXED, LENGTH // 8 + 32 + PERIOD),
    "global and window": (Causal() & (Window(20) | Global(7)), 7 + 20 + PERIOD),
    "heads": (ByHead((FIXED, Causal() & Window(9))), LENGTH // 8 + 32 + PERIOD),
    "strided": (Causal() & (Window(8) | Strided(8)), LENGTH),
}


def places(rows: int, ragged: bool) -> Places:
    if not ragged:
        return Places.run(0, LENGTH)
    real = torch.arange(LENGTH)[None] >= torch.tensor([[0], [70]])
    return Places((real.cumsum(1) - 1).clamp(min=0), real)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("name", NEEDED)
def test_steps_equal_one_pass_and_the_cache_stays_short(name: str, ragged: bool) -> None:
    torch.manual_seed(0)
    pattern, most = NEEDED[name]
    layer = Attention(2, pattern=pattern).build(Site(dim=8, causal=True)).double()
    x, at = torch.randn(2, LENGTH, 8, dtype=torch.float64), places(2, ragged)
    whole = layer(x, Call(at)).y
    state, outs, start = None, [], 0
    for size in (100, 1, 7, PERIOD, 1, LENGTH - 2 * PERIOD - 100, *[1] * (PERIOD - 9)):
        now = at.some(torch.arange(start, start + size)) if ragged else Places.run(start, size)
        out = layer(x[:, start : start + size], Call(now), state)
        outs, state, start = [*outs, out.y], out.state, start + size
    assert start == LENGTH
    real = torch.ones(2, LENGTH, dtype=torch.bool) if at.real is None else at.real
    torch.testing.assert_close(torch.cat(outs, 1)[real], whole[real])
    assert len(state.k) <= most
    assert state.places.length == len(state.k) == len(state.v)


@pytest.mark.parametrize("pattern", [Causal(), Causal() & Strided(8)], ids=repr)
def test_what_is_seen_for_ever_is_kept(pattern: Pattern) -> None:
    layer = Attention(2, pattern=pattern).build(Site(dim=8, causal=True))
    state = layer(torch.randn(1, 2 * PERIOD, 8, dtype=torch.float32), Call(Places.run(0, 2 * PERIOD))).state
    assert len(state.k) == 2 * PERIOD
