"""Bytes of one file to text, or one clear sentence on why not."""

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from formers.errors import DataError


class NotTextError(DataError):
    """The file can be read, but holds something else than UTF-8 text."""


def opened(path: Path) -> BinaryIO:
    """A stream of the file's bytes, unpacked if its name ends in .gz."""
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def read_text(path: Path) -> str:
    """The whole file as text, line ends as they are; raises DataError if unreadable, NotTextError if it is no text."""
    try:
        with opened(path) as stream:
            return as_text(stream.read(), path)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error


def as_text(content: bytes, path: Path, line: int | None = None) -> str:
    """Decode UTF-8, without a byte-order mark; `line` tells the error where in the file the content stands."""
    place = str(path) if line is None else f"{path}, line {line}"
    nul = content.find(b"\0")
    if nul >= 0:
        raise NotTextError(f"{place} is not text: it has a NUL byte at offset {nul}; give text in UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotTextError(
            f"{place} is not UTF-8: byte 0x{content[error.start]:02x} at offset {error.start}; "
            "convert it, for example with iconv -f latin1 -t utf-8"
        ) from error


def unreadable(path: Path, error: Exception) -> DataError:
    """The DataError for a file that the system, or gzip, would not read."""
    if isinstance(error, OSError) and error.errno is not None:
        return DataError(f"cannot read {path}: {error.strerror}")
    return DataError(f"{path} is damaged: it does not unpack ({error}); fetch or pack it again")
