"""Which backend short inputs run on: the dense one, and without a mask where their blocks come to all that it knows by name."""

import pytest
import torch

from formers import Blocks, Causal, Window
from formers.attention.backends import BACKENDS, attend
from formers.attention.pattern import Pattern
from formers.attention.patterns.random_blocks import RandomBlocks
from formers.attention.patterns.seen_by_all import Global
from formers.attention.patterns.strided import Strided
from formers.attention.plan import dense_plan
from formers.attention.request import Request, Shown
from formers.attention.tiles import attend_tiles
from formers.native import missing
from formers.places import Memo, Places
from formers.position import NoPosition
from formers.spec import Site

HEADS = 2
BIG_BIRD = Blocks(64, 1, 1) | Global(64) | RandomBlocks(64, 3, heads=HEADS, length=512)
STRIDED = Causal() & (Window(128) | Strided(128))


def request(pattern: Pattern, length: int) -> Request:
    drawn = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, HEADS, length, 8, generator=drawn).requires_grad_() for _ in range(3))
    at, position = Places.run(0, length), NoPosition().build(Site(16, heads=HEADS, kv_heads=HEADS, head_dim=8))
    return Request(q, k, v, at, at, pattern, position, 0.3, 0.0, Memo())


def backend(asked: Request) -> str:
    return next(each.name for each in BACKENDS if each.refuses(asked) is None)


@pytest.mark.skipif(missing() is not None, reason="there are no blocks without the native library")
@pytest.mark.parametrize(
    ("pattern", "length", "name", "shown"),
    [
        (Causal() & Window(256), 200, "sdpa", Shown.PAST),
        (Causal() & Window(256), 400, "visits", Shown.SOME),
        (Window(256), 200, "sdpa", Shown.ALL),
        (BIG_BIRD, 128, "sdpa", Shown.ALL),
        (BIG_BIRD, 512, "visits", Shown.SOME),
        (STRIDED, 128, "sdpa", Shown.PAST),
        (STRIDED, 200, "sdpa", Shown.SOME),
        (STRIDED, 300, "visits", Shown.SOME),
    ],
)
def test_blocks_are_used_from_where_they_pay(pattern: Pattern, length: int, name: str, shown: Shown) -> None:
    asked = request(pattern, length)
    assert asked.shown is shown and backend(asked) == name


@pytest.mark.parametrize("pattern", [Causal() & Window(256), BIG_BIRD, STRIDED])
@pytest.mark.parametrize("length", [128, 200])
def test_they_give_what_tiles_give(pattern: Pattern, length: int) -> None:
    asked = request(pattern, length)
    plan = dense_plan(length, length, torch.device("cpu"))
    at = asked.at
    tiles, _ = attend_tiles(
        asked.q, asked.k, asked.v, plan, at=at, to=at, pattern=pattern, position=asked.position, scale=0.3, dropout=0.0
    )
    torch.testing.assert_close(attend(asked), tiles)


def test_a_mask_that_was_made_in_inference_serves_training() -> None:
    with torch.inference_mode():
        attend(request(STRIDED, 190))
    asked = request(STRIDED, 190)
    attend(asked).sum().backward()
    assert asked.q.grad is not None and bool(asked.q.grad.isfinite().all())
