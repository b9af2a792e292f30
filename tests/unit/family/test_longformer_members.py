"""Longformer's members: windows for each layer, and a language model whose caches end where its windows do."""

from typing import Any

import pytest
import torch

from formers import ByHead, Causal, ConfigError, Dilated, LongformerAttention, Window, make
from formers.family.longformer import grown

TINY = {"vocab": 40, "dim": 16, "heads": 4, "hidden": 16}


def patterns(spec: Any) -> list[Any]:
    return [block.sublayers[0].pattern for block in spec.blocks]


def test_published_windows_count_both_sides() -> None:
    assert patterns(make("longformer")) == [Window(257)] * 12
    assert patterns(make("longformer", depth=3, window=(4, 2, 64))) == [Window(3), Window(2), Window(33)]
    assert all(isinstance(block.sublayers[0], LongformerAttention) for block in make("longformer").blocks)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"window": (4, 4)}, r"window=\(4, 4\) tells 2 windows for depth=12"),
        ({"window": 7}, "a window of 7 has no two equal sides: window=8"),
    ],
)
def test_windows_that_are_none(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make("longformer", **given)


def test_windows_double_with_depth_and_two_heads_above_have_gaps() -> None:
    seen = patterns(make("longformer_lm"))
    assert seen[:6] == [Causal() & Window(size) for size in (32, 32, 32, 64, 64, 128)]
    steps = [(128, 2), (128, 2), (256, 3), (256, 3), (512, 4), (512, 4)]
    assert seen[6:] == [Causal() & ByHead((Window(size),) * 6 + (Dilated(size, step),) * 2) for size, step in steps]
    assert patterns(make("longformer_lm", dilated=0))[11] == Causal() & Window(512)


@pytest.mark.parametrize(
    ("first", "last", "depth", "sizes"),
    [(3, 3, 2, [3, 3]), (2, 8, 3, [2, 4, 8]), (32, 512, 5, [32, 64, 128, 256, 512]), (5, 10, 3, [5, 5, 10])],
)
def test_how_windows_grow(first: int, last: int, depth: int, sizes: list[int]) -> None:
    assert grown(first, last, depth) == sizes


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"window": (32, 500)}, "doubling does not lead from a window of 32 to one of 500"),
        ({"window": (0, 8)}, "doubling does not lead from a window of 0"),
        ({"window": (64, 32)}, "doubling does not lead"),
        ({"depth": 3}, "5 windows from 32 to 512 need as many layers: depth=5, or window=.32, 128."),
        ({"dilated": 9}, "of 8 heads 9 cannot be dilated"),
    ],
)
def test_windows_that_do_not_grow(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make("longformer_lm", **given)


def test_a_cache_is_no_longer_than_what_its_layer_may_still_see() -> None:
    spec = make("longformer_lm", **TINY, depth=4, window=(3, 12), dilated=2, dropout=0.0)
    model, state = spec.build().eval(), None
    horizons = [pattern.horizon for pattern in patterns(spec)]
    assert horizons == [3, 3, 12, 36]
    with torch.no_grad():
        for count in range(1, 60):
            state = model.step(torch.randint(40, (1, 1)), state).state
            kept = [block[0].places.length for block in state.blocks]
            assert all(length <= min(count, horizon - 1) for length, horizon in zip(kept, horizons, strict=True))
    assert kept[:3] == [2, 2, 11]
