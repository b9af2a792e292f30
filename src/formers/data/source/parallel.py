"""Parallel text: two files whose lines translate each other."""

import zlib
from collections.abc import Iterator
from pathlib import Path

from formers.data.source.reading import as_text, opened, unreadable
from formers.errors import DataError


def pairs(source: str | Path, target: str | Path) -> Iterator[tuple[str, str]]:
    """Line by line, a sentence and its translation, without line ends; the files plain or .gz.

    Raises DataError, before the first pair, if the files differ in their number of lines or have none.
    """
    source, target = Path(source), Path(target)
    lines, translations = _count(source), _count(target)
    if lines != translations:
        raise DataError(
            f"{source} has {lines} lines but {target} has {translations}: they do not translate each other line by "
            "line; give two files that are aligned"
        )
    if not lines:
        raise DataError(f"{source} and {target} are empty; give files that hold text")
    yield from zip(_lines(source), _lines(target), strict=True)


def _count(path: Path) -> int:
    return sum(1 for _ in _raw(path))


def _lines(path: Path) -> Iterator[str]:
    for number, line in enumerate(_raw(path), start=1):
        yield as_text(line, path, number).rstrip("\r\n")


def _raw(path: Path) -> Iterator[bytes]:
    try:
        with opened(path) as stream:
            yield from stream
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error
