"""Images out of files: every form that they come in, and one clear error for each that they should not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from formers.data.images import Images, hold_out, read_image, read_images, write_grid
from formers.errors import DataError

CHANCE = np.random.default_rng(0)


def drawn(*shape: int) -> Any:
    return CHANCE.integers(0, 256, shape, dtype=np.uint8)


def test_an_archive_keeps_its_test_images_apart(tmp_path: Path) -> None:
    train, test = drawn(6, 4, 5), drawn(3, 4, 5)
    np.savez(tmp_path / "a.npz", train_images=train, test_images=test, train_labels=np.arange(6))
    images = read_images([tmp_path / "a.npz"])
    assert images.shape == (4, 5, 1)
    np.testing.assert_array_equal(images.train[..., 0], train)
    np.testing.assert_array_equal(images.test[..., 0], test)
    assert len(images.together) == 9


def test_an_archive_of_test_images_alone_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", test_images=drawn(3, 4, 5, 3).astype(np.int64))
    images = read_images([tmp_path / "a.npz"])
    assert images.shape == (4, 5, 3) and len(images.train) == 3 and images.test is None


def test_a_folder_gives_the_images_below_it_in_order(tmp_path: Path) -> None:
    one, two = drawn(4, 5), drawn(4, 5)
    (tmp_path / "deeper").mkdir()
    Image.fromarray(one).save(tmp_path / "deeper" / "1.png")
    Image.fromarray(two).save(tmp_path / "2.PNG")
    (tmp_path / "notes.txt").write_text("not an image")
    images = read_images([tmp_path])
    np.testing.assert_array_equal(images.train[..., 0], np.stack([two, one]))


def test_one_colour_image_makes_all_of_three_channels(tmp_path: Path) -> None:
    grey, colour = drawn(4, 5), drawn(4, 5, 3)
    Image.fromarray(grey).save(tmp_path / "1.png")
    Image.fromarray(colour).save(tmp_path / "2.png")
    images = read_images([tmp_path / "1.png", tmp_path / "2.png"])
    np.testing.assert_array_equal(images.train, np.stack([np.repeat(grey[..., None], 3, -1), colour]))
    assert read_image(tmp_path / "1.png").shape == (4, 5, 1)


def test_the_digits_are_read_or_asked_for(tmp_path: Path) -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError:
        with pytest.raises(DataError, match="pip install scikit-learn"):
            read_images([Path("digits")])
    else:
        assert read_images([Path("digits")]).train.shape == (1797, 8, 8, 1)


def spoilt(folder: Path, kind: str) -> list[Path]:
    """What is named in place of images."""
    path = folder / "a.npz"
    if kind == "missing":
        return [folder / "none.npz"]
    if kind == "empty folder":
        return [folder]
    if kind == "text":
        (folder / "a.txt").write_text("text")
        return [folder / "a.txt"]
    if kind == "no archive":
        path.write_text("text")
    elif kind == "no images":
        np.savez(path, labels=np.arange(3))
    elif kind == "empty array":
        np.savez(path, images=np.zeros((0, 3, 3), np.uint8))
    elif kind == "floats":
        np.savez(path, images=np.zeros((2, 3, 3)))
    elif kind == "too bright":
        np.savez(path, images=np.full((2, 3, 3), 256))
    elif kind == "two sizes":
        np.savez(path, images=drawn(2, 3, 3), others=drawn(2, 3, 4))
    elif kind == "damaged":
        Image.fromarray(drawn(30, 30)).save(folder / "a.png")
        (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:200])
        return [folder / "a.png"]
    elif kind == "16 bits":
        Image.fromarray(drawn(3, 3).astype(np.uint16)).save(folder / "a.png")
        return [folder / "a.png"]
    elif kind == "renamed":
        (folder / "a.png").write_text("text")
        return [folder / "a.png"]
    elif kind == "sizes of files":
        Image.fromarray(drawn(3, 3)).save(folder / "a.png")
        Image.fromarray(drawn(3, 4)).save(folder / "b.png")
        return [folder]
    return [path]


@pytest.mark.parametrize(
    ("kind", "said"),
    {
        "missing": "none.npz does not exist; name an .npz of images",
        "empty folder": "holds no image; name an .npz of images",
        "text": "a.txt holds no images that can be read",
        "no archive": "a.npz is no archive of arrays",
        "no images": "a.npz holds no images, which would be (N, H, W) or (N, H, W, 1 or 3); it holds labels (3,)",
        "empty array": "a.npz: images is empty: (0, 3, 3)",
        "floats": "a.npz: images holds float64 from 0 to 0; intensities are whole numbers from 0 to 255",
        "too bright": "a.npz: images holds int64 from 256 to 256",
        "two sizes": "a.npz: images has 3 x 3 pixels of 1 channel and",
        "damaged": "a.png is damaged",
        "16 bits": "a.png has more than 8 bits a channel",
        "renamed": "a.png is no image",
        "sizes of files": "a.png has 3 x 3 pixels of 1 channel and",
    }.items(),
)
def test_what_is_no_image_is_refused(kind: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as refusal:
        read_images(spoilt(tmp_path, kind))
    assert said in str(refusal.value)


def test_copies_are_never_on_both_sides() -> None:
    several = drawn(40, 3, 3, 1)
    train, held_out = hold_out(Images(np.concatenate([several, several])))
    assert len(train) + len(held_out) == 80 and len(held_out) == 4
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in held_out}


def test_images_for_testing_are_those_held_out() -> None:
    images = Images(drawn(9, 3, 3, 1), drawn(600, 3, 3, 1))
    train, held_out = hold_out(images)
    assert train is images.train and held_out.shape == (512, 3, 3, 1)
    assert {image.tobytes() for image in held_out} <= {image.tobytes() for image in images.test}


def test_one_image_cannot_be_held_out() -> None:
    with pytest.raises(DataError, match="name at least two that differ"):
        hold_out(Images(np.repeat(drawn(1, 3, 3, 1), 5, 0)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("count", "size"), [(1, (5, 4)), (5, (12, 16)), (4, (12, 10))])
def test_a_grid_shows_every_image(count: int, size: tuple[int, int], channels: int, tmp_path: Path) -> None:
    images = drawn(count, 5, 4, channels)
    write_grid(tmp_path / "grid.png", images)
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.format == "PNG" and picture.mode == ("L" if channels == 1 else "RGB")
        sheet = np.asarray(picture).reshape(picture.height, picture.width, channels)
    columns = -(-(sheet.shape[1]) // 6)
    for number, image in enumerate(images):
        top, left = number // columns * 7, number % columns * 6
        np.testing.assert_array_equal(sheet[top : top + 5, left : left + 4], image)
