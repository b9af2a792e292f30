"""Chunks of positions: what they show, and their run as one round of sorted chunks against the tile executor."""

import itertools

import pytest
import torch

from formers import Attention, Blocks, Causal, Everything
from formers.attention import backends
from formers.attention.pattern import Pattern
from formers.attention.sorted.local import is_causal, local_rules
from formers.attention.sorted.plan import Rules
from formers.call import Call
from formers.places import Places, keys, queries
from formers.spec.core import Site

PATTERNS = [Causal() & Blocks(4, 1), Blocks(5, 2) & Causal(), Causal() & Blocks(3), Blocks(4, 1, 2), Blocks(3, 0, 1)]


@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 0), (2, 1)])
def test_blocks_see_their_neighbours(before: int, after: int) -> None:
    at, pattern = Places.run(2, 19), Blocks(4, before, after)
    visible = pattern.visible(queries(at), keys(at), torch.arange(2)[:, None, None])[0, 0]
    for q, k in itertools.product(range(2, 21), repeat=2):
        assert visible[q - 2, k - 2] == (q // 4 - k // 4 in range(-after, before + 1))
    for q_lo, q_hi, k_lo, k_hi in itertools.product(range(2, 17, 3), range(2, 17, 4), range(2, 17, 3), range(2, 17, 4)):
        if q_lo <= q_hi and k_lo <= k_hi:
            part = visible[q_lo - 2 : q_hi - 1, k_lo - 2 : k_hi - 1]
            assert pattern.covers(q_lo, q_hi, k_lo, k_hi) == bool(part.all())
            reaches = pattern.reaches(*(torch.tensor(bound) for bound in (q_lo, q_hi, k_lo, k_hi)))
            assert bool(reaches) or not part.any()


def test_which_patterns_are_chunks() -> None:
    assert local_rules(Causal() & Blocks(4, 1, 3), 0) == Rules(4, 1, 0)
    assert local_rules(Blocks(4, 1, 3), 8) == Rules(4, 1, 3)
    assert local_rules(Blocks(4, 1, 3), 6) is None
    assert is_causal(Causal() & Blocks(4, 1, 3)) and not is_causal(Blocks(4, 1, 3))
    for other in (Causal(), Everything(), Causal() | Blocks(4), Blocks(2) & Blocks(3)):
        assert local_rules(other, 0) is None


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
@pytest.mark.parametrize(("length", "kv_heads"), [(17, 4), (24, 2), (23, 4)])
def test_sorted_chunks_equal_tiles(
    pattern: Pattern, length: int, kv_heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forwards and backwards, through a layer, which chooses them by itself where a text is long."""
    torch.manual_seed(0)
    layer = Attention(4, kv_heads, pattern=pattern).build(Site(dim=16, causal=pattern.causal)).double()
    x = torch.randn(2, length, 16, dtype=torch.float64, requires_grad=True)
    upstream, ran, run = torch.randn_like(x), [], backends.SortedChunks.run
    monkeypatch.setattr(backends.SortedChunks, "run", lambda self, asked: ran.append(asked) or run(self, asked))

    def made() -> tuple[torch.Tensor, ...]:
        y = layer(x, Call(Places.run(0, length))).y
        return y, *torch.autograd.grad(y, (x, *layer.parameters()), upstream)

    wanted = made()
    assert not ran
    monkeypatch.setattr(backends, "SMALL", 0)
    monkeypatch.setattr(backends, "SPARSE", 2.0)  # so that no dense product is faster
    torch.testing.assert_close(made(), wanted)
    assert len(ran) == 1


@pytest.mark.parametrize("start", [0, 8, 3])
def test_what_sorted_chunks_leave_to_others(start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts that begin within a chunk, padded ones, and those that continue another; all come to the same."""
    monkeypatch.setattr(backends, "SMALL", 0)
    monkeypatch.setattr(backends, "SPARSE", 2.0)
    torch.manual_seed(0)
    layer = Attention(2, pattern=PATTERNS[0]).build(Site(dim=8, causal=True)).double()
    x = torch.randn(1, 21, 8, dtype=torch.float64)
    at = Places.run(start, 21)
    whole = layer(x, Call(at))
    padded = layer(x, Call(Places(at.pos, torch.arange(21)[None] < 17))).y
    torch.testing.assert_close(padded[:, :17], whole.y[:, :17])
    first = layer(x[:, :9], Call(Places.run(start, 9)))
    rest = layer(x[:, 9:], Call(Places.run(start + 9, 12)), first.state)
    torch.testing.assert_close(torch.cat([first.y, rest.y], 1), whole.y)
