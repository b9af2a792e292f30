"""Chunks of positions: what they show, and layers of them by blocks against the tile executor."""

import itertools

import pytest
import torch

from formers import Attention, Blocks, Causal, native
from formers.attention import backends
from formers.attention.pattern import Pattern
from formers.attention.span import Span
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
            q, k = (Span(torch.tensor(low), torch.tensor(high)) for low, high in ((q_lo, q_hi), (k_lo, k_hi)))
            assert pattern.covers(q, k) == part.all()
            assert pattern.reaches(q, k) or not part.any()


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
@pytest.mark.parametrize(("length", "kv_heads"), [(170, 4), (65, 2)])
def test_a_layer_runs_by_blocks_where_it_can(
    pattern: Pattern, length: int, kv_heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In single precision, forwards and backwards: what tiles give in double precision."""
    if native.missing() is not None:
        pytest.skip(str(native.missing()))
    monkeypatch.setattr(backends, "FEW", 0)  # so that no dense product is faster
    torch.manual_seed(0)
    layer = Attention(4, kv_heads, pattern=pattern).build(Site(dim=16, causal=pattern.causal)).double()
    x, ran, run = torch.randn(2, length, 16, dtype=torch.float64), [], backends.Visits.run
    upstream = torch.randn_like(x)
    monkeypatch.setattr(backends.Visits, "run", lambda self, asked: ran.append(asked) or run(self, asked))

    def made(exact: Attention, given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = given.requires_grad_()
        y = exact(given, Call(Places.run(0, length))).y
        return y, *torch.autograd.grad(y, (given, *exact.parameters()), upstream.to(y))

    wanted = made(layer, x)
    assert not ran
    for one, other in zip(made(layer.float(), x.detach().float()), wanted, strict=True):
        torch.testing.assert_close(one.double(), other.double(), atol=2e-4, rtol=1e-3)
    assert len(ran) == 1


@pytest.mark.parametrize("start", [0, 8, 3])
def test_local_layers_at_any_start_padding_and_cut(start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts that begin within a chunk, padded ones, and those that continue another; all come to the same."""
    monkeypatch.setattr(backends, "SMALL", 0)
    monkeypatch.setattr(backends, "SPARSE", 2.0)  # so that no dense product is faster
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
