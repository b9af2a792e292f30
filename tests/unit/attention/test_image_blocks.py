"""Local attention on images, against masks that loops over the pixels make."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from formers import Canvas, Causal, ConfigError, Local1D, Local2D, make
from formers.attention.pattern import Pattern
from formers.attention.span import BlockSpans
from formers.places import Places, Spots, keys, queries

CANVASES = [
    Canvas(8, 6, 1, (4, 3)),
    Canvas(5, 7, 1, (2, 3)),  # blocks are cut short at both edges
    Canvas(4, 4, 3, (2, 4)),
    Canvas(3, 5, 2, (8, 8)),  # one block
    Canvas(6, 4, 1, (1, 1)),
]
FLANGES = [(0, 0), (1, 1), (3, 2), (8, 4)]
TWO_D = [Local2D(canvas, *flange) for canvas, flange in itertools.product(CANVASES, FLANGES)]
ONE_D = [Local1D(5, 0), Local1D(4, 4), Local1D(6, 3), Local1D(1, 7), Local1D(64, 10)]
LENGTH = 47


def seen(pattern: Pattern, length: int) -> Tensor:
    """(length, length) bool."""
    at = Places.run(0, length)
    return pattern.visible(queries(at), keys(at), torch.zeros(1, 1, 1, dtype=torch.int64))[0, 0]


def generated(canvas: Canvas) -> list[tuple[int, int, int]]:
    """Row, column and channel of each token, block by block."""
    height, width = canvas.block or (canvas.height, canvas.width)
    found = []
    for top in range(0, canvas.height, height):
        for left in range(0, canvas.width, width):
            for row in range(top, min(top + height, canvas.height)):
                for column in range(left, min(left + width, canvas.width)):
                    found += [(row, column, channel) for channel in range(canvas.channels)]
    return found


def dense(pattern: Any) -> Tensor:
    """What a decoder sees of one image, pair by pair."""
    canvas, tokens = pattern.canvas, generated(pattern.canvas)
    height, width = canvas.block
    mask = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
    for i, (row, column, _) in enumerate(tokens):
        top, left = row - row % height, column - column % width
        for j in range(i + 1):
            y, x, _ = tokens[j]
            mask[i, j] = (
                top - pattern.above <= y < top + height and left - pattern.beside <= x < left + width + pattern.beside
            )
    return mask


@pytest.mark.parametrize("canvas", [*CANVASES, Canvas(5, 4, 3)], ids=repr)
def test_tokens_come_block_by_block_and_are_found_again(canvas: Canvas) -> None:
    at, tokens = canvas.tables(), generated(canvas)
    assert list(zip(at.row.tolist(), at.column.tolist(), at.channel.tolist(), strict=True)) == tokens
    numbers = torch.arange(canvas.length)
    torch.testing.assert_close(at.order[at.place], numbers)
    torch.testing.assert_close(at.place[at.order], numbers)
    image = torch.randint(256, (canvas.height, canvas.width, canvas.channels))
    assert image.flatten()[at.order].tolist() == [int(image[token]) for token in tokens]


@pytest.mark.parametrize("pattern", TWO_D, ids=repr)
def test_two_dimensions_show_a_block_and_its_flange(pattern: Local2D) -> None:
    length = pattern.canvas.length
    mask = dense(pattern)
    torch.testing.assert_close(seen(Causal() & pattern, length), mask)
    two = seen(Causal() & pattern, 2 * length)  # images that follow each other do not see each other
    torch.testing.assert_close(two, torch.block_diag(mask, mask).bool())


@pytest.mark.parametrize("pattern", ONE_D, ids=repr)
def test_one_dimension_shows_a_block_and_the_tokens_before_it(pattern: Local1D) -> None:
    mask = torch.zeros(LENGTH, LENGTH, dtype=torch.bool)
    for i in range(LENGTH):
        begin = i - i % pattern.size
        for j in range(max(0, begin - pattern.memory), i + 1):
            mask[i, j] = True
    torch.testing.assert_close(seen(Causal() & pattern, LENGTH), mask)
    assert seen(pattern, LENGTH)[0].sum() == min(pattern.size, LENGTH)  # an encoder sees all of its own block


@pytest.mark.parametrize("pattern", ONE_D + TWO_D, ids=repr)
@pytest.mark.parametrize("causal", [False, True])
def test_what_is_kept_is_what_will_be_seen(pattern: Any, causal: bool) -> None:
    """Exactly, and the horizon is the least that holds."""
    length = 2 * pattern.canvas.length if isinstance(pattern, Local2D) else LENGTH
    rule = Causal() & pattern if causal else pattern
    mask = seen(rule, length + 64)[:, :length]
    later = mask.flip(0).cummax(0).values.flip(0)[:length]  # (after, key): may a query at `after` or later see the key?
    places = torch.arange(length)
    torch.testing.assert_close(rule.keeps(places, places[:, None]), later)
    back = (torch.arange(length + 64)[:, None] - places)[mask]
    assert rule.horizon is not None
    assert rule.horizon == int(back.max()) + 1 or (isinstance(pattern, Local1D) and rule.horizon > LENGTH)


@pytest.mark.parametrize("pattern", ONE_D + TWO_D, ids=repr)
@pytest.mark.parametrize("shuffled", [False, True])
def test_bounds_of_blocks_are_right_and_tight(pattern: Any, shuffled: bool) -> None:
    length, size = 60, 6
    order = torch.randperm(length, generator=torch.Generator().manual_seed(0)) if shuffled else torch.arange(length)
    blocks = order.view(1, -1, size)
    real = torch.ones_like(blocks, dtype=torch.bool)
    q, k = (BlockSpans(Spots(blocks, {}), real, axis) for axis in (1, 0))
    met = seen(pattern, length)[order][:, order].view(length // size, size, length // size, size).transpose(1, 2)
    some, all_ = met.flatten(2).any(-1), met.flatten(2).all(-1)
    reaches, covers = pattern.reaches(q, k), pattern.covers(q, k)
    assert bool((reaches | ~some).all())
    assert bool((~covers | all_).all())
    if isinstance(pattern, Local1D) and not shuffled:
        torch.testing.assert_close(reaches, some)
        torch.testing.assert_close(covers, all_)


def test_blocks_of_a_query_block_are_bounded_exactly() -> None:
    """As the pattern is planned: each block of queries is one of the image."""
    pattern = Local2D(Canvas(16, 16, 1, (4, 4)), 4, 4)
    blocks = torch.arange(256).view(1, -1, 16)
    q, k = (BlockSpans(Spots(blocks, {}), torch.ones_like(blocks, dtype=torch.bool), axis) for axis in (1, 0))
    met = seen(pattern, 256).view(16, 16, 16, 16).transpose(1, 2).flatten(2)
    torch.testing.assert_close(pattern.reaches(q, k), met.any(-1))
    torch.testing.assert_close(pattern.covers(q, k), met.all(-1))
    assert int(pattern.reaches(q, k).sum(1).max()) == 6  # its own, those beside it, and three above


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"height": 0}, "an image of (0, 8, 1) rows, columns and channels has no pixel"),
        ({"block": (0, 4)}, "blocks of (0, 4) rows and columns have no pixel"),
        ({"memory": (-1, 4)}, "a flange cannot be -1 rows high and 4 columns wide"),
        ({"block": 0, "memory": 4}, "blocks of 0 tokens hold nothing"),
        ({"block": 4, "memory": -4}, "there cannot be -4 tokens before a block"),
        ({"block": 4}, "block=4 and memory=(2, 2) are not of one kind"),
        ({"dim": 30, "heads": 2}, "sines and cosines of two coordinates come in fours, but dim is 30"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    small = {"height": 8, "width": 8, "channels": 1, "levels": 4, "dim": 16, "depth": 1, "heads": 2, "hidden": 16}
    with pytest.raises(ConfigError) as refusal:
        make("image_transformer", **(small | {"block": (4, 4), "memory": (2, 2)} | changes)).build()
    assert said in str(refusal.value)


@pytest.mark.parametrize("near", [{"block": 4, "memory": 6}, {"block": (4, 3), "memory": (2, 2)}])
def test_a_cache_is_no_longer_than_the_pattern_needs(near: dict[str, Any]) -> None:
    small = {"height": 12, "width": 9, "channels": 1, "levels": 4, "dim": 16, "depth": 1, "heads": 2, "hidden": 16}
    model = make("image_transformer", **small, **near).build().eval()
    horizon, state = model.spec.blocks[0].sublayers[0].pattern.horizon, None
    assert horizon < 70
    for _ in range(108):
        state = model.step(torch.zeros(1, 1, dtype=torch.int64), state).state
        assert state.blocks[0][0].places.length < horizon
    assert state.blocks[0][0].places.length == horizon - 1


def test_a_canvas_in_raster_order_has_no_blocks() -> None:
    with pytest.raises(ConfigError, match="has no blocks to attend from"):
        spec = make("image_transformer", height=4, width=4, channels=1, block=(2, 2), memory=(1, 1))
        block = spec.blocks[0]
        attention = block.sublayers[0].replace(pattern=Causal() & Local2D(Canvas(4, 4), 1, 1))
        spec.replace(blocks=(block.replace(sublayers=(attention, *block.sublayers[1:])),)).build()
