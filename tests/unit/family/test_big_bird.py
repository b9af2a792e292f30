"""Big Bird's three constructions see what the paper says, at every length."""

import pytest
import torch

from formers import ConfigError, Decoder, Encoder, make
from formers.attention.pattern import Pattern
from formers.family.big_bird import causal_pattern, etc_pattern, itc_pattern
from formers.places import Places, keys, queries

SHAPE = {"vocab": 40, "dim": 16, "depth": 3, "heads": 2, "hidden": 24, "length": 48, "block": 4, "random": 1}


def blocks_seen(pattern: Pattern, length: int) -> torch.Tensor:
    """Which blocks of 4 (heads, n, n) see each other; all pairs of two blocks are alike, or this fails."""
    at = Places.run(0, length)
    seen = pattern.visible(queries(at), keys(at), torch.arange(2)[:, None, None]).expand(1, 2, -1, -1)[0]
    tiles = seen.unflatten(2, (-1, 4)).unflatten(1, (-1, 4)).transpose(2, 3).flatten(3)
    assert torch.equal(tiles.any(-1), tiles.all(-1))
    return tiles.any(-1)


def test_the_internal_construction() -> None:
    seen, place = blocks_seen(itc_pattern(2, 48, 4, random=2), 48), torch.arange(12)
    ends, near = (place == 0) | (place == 11), (place - place[:, None]).abs() <= 1
    shown = ends | ends[:, None] | near
    assert seen[:, shown].all()
    inner = (seen & ~shown)[:, 1:-1].sum(-1)
    assert torch.equal(inner, torch.full_like(inner, 2))  # so that no random block is wasted on what is seen anyway
    assert not torch.equal(seen[0], seen[1])


def test_the_extended_construction() -> None:
    seen = blocks_seen(etc_pattern(2, 40, 8, 4, random=0), 48)
    assert seen[:, :2].all() and seen[:, :, :2].all()
    assert not seen[:, -1, 2:-2].any()  # no block at the end is global
    drawn = blocks_seen(etc_pattern(2, 40, 8, 4, random=2), 48) & ~seen
    assert torch.equal(drawn.sum(-1)[:, 2:], torch.full((2, 10), 2))


def test_the_causal_form() -> None:
    at = Places.run(0, 48)
    seen = causal_pattern(2, None, 4, random=2).visible(queries(at), keys(at), torch.arange(2)[:, None, None])[0]
    assert not seen.triu(1).any()
    blocks = seen[:, 3::4, ::4]
    assert blocks.sum(-1)[0].tolist() == [1, 2, 3, 4, 5] + [6] * 7


@pytest.mark.parametrize("length", [8, 20, 44])
def test_short_texts_are_read_by_the_same_rule(length: int) -> None:
    """The published code attends to everything below 5 + 2 random blocks."""
    pattern = itc_pattern(2, 48, 4)
    long, short = (blocks_seen(pattern, n) for n in (48, length))
    assert torch.equal(short, long[:, : length // 4, : length // 4])


@pytest.mark.parametrize("name", ["big_bird", "big_bird_etc", "big_bird_lm"])
def test_each_layer_draws_other_blocks(name: str) -> None:
    shape = SHAPE | {"random": 2} | ({"tokens": 4} if name == "big_bird_etc" else {})
    at = Places.run(0, 48)
    seen = {
        tuple(
            block.sublayers[0].pattern.visible(queries(at), keys(at), torch.arange(2)[:, None, None]).flatten().tolist()
        )
        for block in make(name, **shape).blocks
    }
    assert len(seen) == 3


def test_without_random_blocks() -> None:
    for name in ("big_bird", "big_bird_lm"):
        spec = make(name, **{**SHAPE, "random": 0})
        assert "RandomBlocks" not in repr(spec)
        assert spec.build()(torch.zeros(1, 40, dtype=torch.int64)).logits.isfinite().all()


def test_kinds_and_sizes() -> None:
    assert isinstance(make("big_bird"), Encoder) and isinstance(make("big_bird_lm"), Decoder)
    assert make("big_bird").max_length == 4096 and make("big_bird_etc").max_length is None


def test_a_window_has_a_middle() -> None:
    with pytest.raises(ConfigError, match="a window of 2 blocks has no middle block: give window=3"):
        make("big_bird", window=2)
    with pytest.raises(ConfigError, match="no middle"):
        make("big_bird_etc", window=-1)
    with pytest.raises(ConfigError, match="-1 blocks"):
        make("big_bird_lm", **{**SHAPE, "window": 0}).build()


def test_a_block_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="blocks of 0 positions hold nothing"):
        make("big_bird", **{**SHAPE, "block": 0}).build()
