"""Folders that are whole or absent: filled under a temporary name beside their place, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".tmp"


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a folder to fill, which is at `path` when the block ends, its files safe on the disk; or nowhere.

    A process that is killed meanwhile leaves `path` + ".tmp" at most, which `sweep` removes. Raises OSError.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        for file in unfinished.iterdir():
            _sync(file)
        _sync(unfinished)
        unfinished.rename(path)
        _sync(path.parent)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def remove_folder(path: Path) -> None:
    """Remove a folder so that no moment shows a part of it under its own name."""
    doomed = path.with_name(path.name + UNFINISHED)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Remove what killed processes left unfinished in a folder."""
    for unfinished in parent.glob("*" + UNFINISHED):
        shutil.rmtree(unfinished, ignore_errors=True)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # folders cannot be opened there, and need not be
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
