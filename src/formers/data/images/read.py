"""Images out of .npz archives, out of files and folders of them, and scikit-learn's digits."""

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from formers.data.source.files import files_below
from formers.data.source.reading import unreadable
from formers.errors import DataError

Pixels = npt.NDArray[np.uint8]

DIGITS = "digits"
SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
HELD_OUT = "test"  # in the name of an array: not to be trained on
TELL = "name an .npz of images, PNG files or folders of them, or the word digits"


class Images(NamedTuple):
    """(N, H, W, C) uint8, C 1 or 3, all of one shape. test: those that their source keeps apart for testing, or None."""

    train: Pixels
    test: Pixels | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of each."""
        _, height, width, channels = self.train.shape
        return height, width, channels

    @property
    def together(self) -> Pixels:
        return self.train if self.test is None else np.concatenate([self.train, self.test])


def read_images(paths: Sequence[Path]) -> Images:
    """The images of .npz archives, of PNG and JPEG files, of folders of these, and of scikit-learn's "digits".

    Of an archive every array (N, H, W) or (N, H, W, 1 or 3) of whole numbers from 0 to 255 counts; those with "test" in
    their names are kept apart. Other images have one channel if all of them are grey, and three otherwise; what is
    transparent is taken as if it were not.
    Raises DataError for a path that does not exist or cannot be read, where there is no image, or images differ in size.
    """
    train: list[tuple[str, Pixels]] = []
    test: list[tuple[str, Pixels]] = []
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += [file for file in files_below(path) if file.suffix.lower() in SUFFIXES]
        elif path.suffix.lower() in SUFFIXES:
            files.append(path)
        elif path.suffix.lower() == ".npz" and path.exists():
            for name, array in _arrays(path):
                (test if HELD_OUT in name else train).append((f"{path}: {name}", array))
        elif str(path) == DIGITS and not path.exists():
            train.append((DIGITS, _digits()))
        else:
            raise DataError(
                f"{path} {'holds no images that can be read' if path.exists() else 'does not exist'}; {TELL}"
            )
    train += _read_files(files)
    if not train and not test:
        raise DataError(f"{', '.join(map(str, paths))} holds no image; {TELL}")
    if not train:
        train, test = test, []
    _require_one_shape(train + test)
    return Images(_joined(train), _joined(test) if test else None)


def read_image(path: Path) -> Pixels:
    """One image (H, W, C) of a PNG or JPEG file."""
    return _read_files([path])[0][1][0]


def _arrays(path: Path) -> Iterator[tuple[str, Pixels]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files}
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no archive of arrays: {error}; {TELL}") from error
    kept = {name: array for name, array in found.items() if array.ndim == 3 or (array.ndim == 4 and _is_colour(array))}
    if not kept:
        told = ", ".join(f"{name} {array.shape}" for name, array in found.items()) or "nothing"
        raise DataError(f"{path} holds no images, which would be (N, H, W) or (N, H, W, 1 or 3); it holds {told}")
    for name, array in kept.items():
        yield name, _as_pixels(array, f"{path}: {name}")


def _is_colour(array: npt.NDArray[Any]) -> bool:
    return array.shape[-1] in (1, 3)


def _as_pixels(array: npt.NDArray[Any], place: str) -> Pixels:
    if not array.size:
        raise DataError(f"{place} is empty: {array.shape}; leave it out")
    if array.dtype.kind not in "ui" or array.min() < 0 or array.max() > 255:
        told = f"{array.dtype} from {array.min():g} to {array.max():g}" if array.dtype.kind in "uif" else array.dtype
        raise DataError(f"{place} holds {told}; intensities are whole numbers from 0 to 255, such as uint8")
    return (array if array.ndim == 4 else array[..., None]).astype(np.uint8)


def _read_files(files: Sequence[Path]) -> list[tuple[str, Pixels]]:
    """Each as one image (1, H, W, C)."""
    from PIL import Image, UnidentifiedImageError

    found = []
    for path in files:
        try:
            with Image.open(path) as image:
                if image.mode[0] in "IF":
                    raise DataError(f"{path} has more than 8 bits a channel ({image.mode}); store it with 8")
                grey = image.mode in ("1", "L", "LA")
                found.append((grey, image.convert("L" if grey else "RGB")))
        except UnidentifiedImageError as error:
            raise DataError(f"{path} is no image; {TELL}") from error
        except (OSError, SyntaxError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise unreadable(path, error) from error
            raise DataError(f"{path} is damaged: {error}; leave it out") from error
    mode = "L" if all(grey for grey, _ in found) else "RGB"
    pixels = [np.asarray(image.convert(mode), np.uint8) for _, image in found]
    return [(str(path), array.reshape(1, *array.shape[:2], -1)) for path, array in zip(files, pixels, strict=True)]


def _digits() -> Pixels:
    """1,797 handwritten digits of 8 x 8 pixels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError("the digits come with scikit-learn, which is not installed: pip install scikit-learn") from None
    return np.rint(load_digits().images * (255 / 16)).astype(np.uint8)[..., None]


def _require_one_shape(found: Sequence[tuple[str, Pixels]]) -> None:
    first, pixels = found[0]
    for place, others in found:
        if others.shape[1:] != pixels.shape[1:]:
            sizes = f"{first} has {_told(pixels)} and {place} has {_told(others)}"
            raise DataError(f"images must be of one size, and {sizes}; bring them to one, or name fewer")


def _told(pixels: Pixels) -> str:
    _, height, width, channels = pixels.shape
    return f"{height} x {width} pixels of {channels} channel{'s' if channels > 1 else ''}"


def _joined(found: Sequence[tuple[str, Pixels]]) -> Pixels:
    return found[0][1] if len(found) == 1 else np.concatenate([pixels for _, pixels in found])
