"""What a model of images reads and writes of each, and back again."""

from typing import Any

import numpy as np
import pytest
import torch

from formers import Canvas, ConfigError, Coordinates, make
from formers.tasks.frame import Frame, smaller
from formers.tasks.pictures import START, batch_of

SMALL = {"height": 6, "width": 4, "channels": 3, "dim": 16, "depth": 1, "heads": 2, "hidden": 16}
BLOCKED = {"block": (2, 3), "memory": (2, 1)}
CHANCE = np.random.default_rng(0)


def frame(name: str = "image_transformer", **changes: Any) -> Frame:
    return Frame.of(make(name, **(SMALL | changes)))


def images(shape: tuple[int, int, int] = (6, 4, 3), count: int = 3) -> Any:
    return CHANCE.integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.mark.parametrize("changes", [{}, BLOCKED])
def test_tokens_and_images_are_each_others_inverse(changes: dict[str, Any]) -> None:
    given = images()
    tokens = frame(**changes).targets(given)
    assert tokens.shape == (3, 72)
    np.testing.assert_array_equal(frame(**changes).images(tokens), given)


def test_tokens_come_in_the_order_of_generation() -> None:
    given = images()
    tokens = frame(**BLOCKED).targets(given)
    block = [given[0, y, x, c] for y in (0, 1) for x in (0, 1, 2) for c in range(3)]
    assert tokens[0, :18].tolist() == block
    assert tokens[0, 18:21].tolist() == given[0, 0, 3].tolist()  # the block beside it is one column wide
    assert frame().targets(given)[0].tolist() == given[0].flatten().tolist()


@pytest.mark.parametrize("levels", [2, 4, 16, 200, 256])
def test_fewer_levels_keep_black_and_white_and_stay_what_they_are(levels: int) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 64, 4, 1)
    one = frame(height=64, channels=1, levels=levels)
    tokens = one.targets(ramp)
    assert tokens.unique().tolist() == list(range(levels))
    again = one.images(tokens)
    assert again.min() == 0 and again.max() == 255
    assert np.abs(again.astype(int) - ramp).max() <= 255 / (levels - 1) / 2 + 1
    torch.testing.assert_close(one.targets(again), tokens)


def test_an_upper_part_is_given_and_the_rest_is_written() -> None:
    completion, given = frame("image_completion", given=(2, 4), **BLOCKED), images()
    assert completion.shape == (6, 4, 3) and completion.completes
    assert completion.sources(given)[0].tolist() == given[0, :2].flatten().tolist()
    assert completion.targets(given).shape == (3, 48)
    np.testing.assert_array_equal(completion.images(completion.targets(given), completion.sources(given)), given)
    assert frame("image_completion").given.height == 3


def test_a_smaller_image_is_the_mean_of_its_parts() -> None:
    bigger, given = frame("image_completion", given=(3, 2), **BLOCKED), images()
    assert bigger.shape == (6, 4, 3) and not bigger.completes
    small = bigger.sources(given).reshape(3, 3, 2, 3)
    assert small[1, 2, 0, 1] == round(float(given[1, 4:6, 0:2, 1].mean()))
    np.testing.assert_array_equal(bigger.images(bigger.targets(given), bigger.sources(given)), given)
    np.testing.assert_array_equal(smaller(given, 6, 4), given)


def test_the_decoder_reads_what_was_written_before() -> None:
    given = images()
    batch = batch_of(frame(**BLOCKED), given)
    assert (batch["inputs"][:, 0] == START).all()
    torch.testing.assert_close(batch["inputs"][:, 1:], batch["targets"][:, :-1])
    assert set(batch_of(frame("image_completion"), given)) == {"inputs", "targets", "source"}


def test_the_upper_half_ends_before_the_first_token_below_it() -> None:
    assert frame().upper_half == 36
    assert frame(block=(4, 4), memory=(1, 1)).upper_half == 36
    assert frame(block=(4, 2), memory=(1, 1)).upper_half == 18  # the first block goes on below


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("image_transformer", {"levels": 1}, "a channel has 2 to 256 intensities, not 1: levels=256"),
        ("image_transformer", {"levels": 257}, "a channel has 2 to 256 intensities, not 257"),
        ("image_completion", {"given": (2, 2)}, "6 x 4 pixels are not made of 2 x 2 by one factor: given=(3, 2)"),
        ("gpt2", None, "gpt2 is no model that writes images"),
        ("transformer", None, "transformer.target is no model that writes images"),
    ],
)
def test_what_frames_no_image_is_refused(name: str, changes: Any, said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        Frame.of(make(name, **(SMALL | changes if changes is not None else {})))
    assert said in str(refusal.value)


def test_parts_of_different_images_are_refused() -> None:
    spec = make("image_transformer", **(SMALL | BLOCKED))
    other = spec.embedding.replace(position=Coordinates(Canvas(6, 5, 3, (2, 3))))
    with pytest.raises(ConfigError, match="stand on 2 different images"):
        Frame.of(spec.replace(embedding=other))


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ConfigError, match="of 6 x 4 pixels with 3 channels, and these have 8 x 8 with 1: height=8"):
        frame().require((8, 8, 1))
