"""Documents out of text files, JSON lines, and folders of both."""

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from formers.data.source.reading import NotTextError, as_text, opened, read_text, unreadable
from formers.data.tokenizer.protocol import whole_text
from formers.errors import DataError

_JSON_LINES = {".jsonl", ".ndjson"}


class Documents:
    """The texts of some files, in order, read anew every time they are walked through; never all in memory.

    A text file is one document, a file of JSON lines one per line. Files found in folders that are not text are left
    out, and after a walk `skipped` names them; files named one by one must be text. Empty documents are left out.
    Raises DataError, naming the file, for what cannot be read, and if no document is left.
    """

    def __init__(self, named: Sequence[Path], found: Sequence[Path] = (), *, field: str = "text", place: str) -> None:
        self.named = tuple(named)
        self.found = tuple(found)
        self.field = field
        self.place = place
        self.skipped: tuple[Path, ...] = ()

    def __iter__(self) -> Iterator[str]:
        skipped: list[Path] = []
        empty = True
        for path, must_be_text in [*((path, True) for path in self.named), *((path, False) for path in self.found)]:
            try:
                for text in self._texts(path):
                    empty = False
                    yield text
            except NotTextError:
                if must_be_text:
                    raise
                skipped.append(path)
        self.skipped = tuple(skipped)
        if empty:
            left_out = f" ({len(skipped)} files that are not UTF-8 text were left out)" if skipped else ""
            raise DataError(f"{self.place} holds no text{left_out}; name data that holds some")

    def _texts(self, path: Path) -> Iterator[str]:
        name = path.with_suffix("") if path.suffix == ".gz" else path
        texts = _json_lines(path, self.field) if name.suffix in _JSON_LINES else iter([read_text(path)])
        return (text for text in texts if text.strip())


def documents(path: str | Path | Iterable[str | Path], field: str = "text") -> Documents:
    """The documents of a text file, a file of JSON lines (.jsonl, .ndjson), a folder, or several of these; or .gz.

    Folders are walked through in sorted order, hidden files and folders left aside. field: which field of each JSON
    line is the text. Raises DataError at once for a path that does not exist, and see `Documents` for the rest.
    """
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(one) for one in path]
    if not paths:
        raise DataError("no data is named; name a text file, a folder, or a file of JSON lines")
    for one in paths:
        if not one.exists():
            raise DataError(f"{one} does not exist; name a text file, a folder, or a file of JSON lines")
    named = [one for one in paths if not one.is_dir()]
    found = [file for one in paths if one.is_dir() for file in files_below(one)]
    return Documents(named, found, field=field, place=", ".join(map(str, paths)))


def files_below(folder: Path, without: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Every regular file under a folder, sorted by its path; without hidden ones, and without the names given."""

    def refuse(error: OSError) -> None:
        raise unreadable(Path(error.filename), error) from error

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in without)
        for name in sorted(files):
            file = Path(place, name)
            if not name.startswith(".") and name not in without and file.is_file():
                yield file


def _json_lines(path: Path, field: str) -> Iterator[str]:
    try:
        with opened(path) as stream:
            for number, line in enumerate(stream, start=1):
                text = as_text(line, path, number)
                if text.strip():
                    yield _field_of(text, field, f"{path}, line {number}")
    except NotTextError as error:
        # Its name promises JSON lines, and some may have been read: that is damage, not a file to leave out.
        raise DataError(str(error)) from error
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error


def _field_of(line: str, field: str, place: str) -> str:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place} is not JSON: {error}; each line must be one object") from error
    if not isinstance(record, dict):
        raise DataError(f"{place} is a JSON {type(record).__name__}; each line must be one object")
    text = record.get(field)
    if not isinstance(text, str):
        have = ", ".join(repr(key) for key, value in record.items() if isinstance(value, str)) or "none"
        raise DataError(f"{place} has no text in its field {field!r}; the fields that hold text are: {have}")
    return whole_text(text)
