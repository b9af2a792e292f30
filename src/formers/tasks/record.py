"""The note in a folder of prepared data: what it was made from, so that it is made once."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from formers.data.atomic import read_json, write_json
from formers.errors import DataError

_NAME = "prepared.json"


def is_noted(folder: Path, made_from: dict[str, Any]) -> bool:
    """Whether the folder holds, whole, what is made from this."""
    try:
        noted = read_json(folder / _NAME)
    except DataError:  # missing or damaged: then it is made anew
        return False
    return all(noted.get(name) == value for name, value in made_from.items())


def read_note(folder: Path) -> dict[str, Any]:
    """The whole note. Raises DataError if there is none."""
    if not (folder / _NAME).is_file():
        raise DataError(f"{folder} holds no prepared text; prepare it from the text first")
    return read_json(folder / _NAME)


def forget_note(folder: Path) -> None:
    """Say that the folder is about to change. Raises DataError if it cannot."""
    try:
        (folder / _NAME).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"cannot write into {folder}: {error.strerror}; name a folder that can be written") from error


def write_note(folder: Path, content: dict[str, Any]) -> None:
    """Say that the folder is whole."""
    write_json(folder / _NAME, content)


def digest_of_texts(texts: Iterable[str]) -> str:
    """SHA-256 of all texts and of where each ends."""
    sha = hashlib.sha256()
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        sha.update(len(content).to_bytes(8, "little") + content)
    return sha.hexdigest()
