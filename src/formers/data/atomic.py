"""Files that are whole or absent: written under a temporary name in the same folder, then renamed."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from formers.errors import DataError


@contextmanager
def replacing(*paths: Path) -> Iterator[list[BinaryIO]]:
    """Give a stream for each path; their bytes become the files when the block ends, and nothing changes if it raises.

    Several files belong together and the last ones complete them: these are away while the first is put in place, so
    that no reader ever finds files of two writings side by side. Folders on the way are made. Raises DataError where
    the disk refuses (full, read-only, not a folder).
    """
    unfinished = [path.with_name(f".{path.name}.{os.getpid()}.part") for path in paths]
    try:
        with ExitStack() as stack:
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
            streams = [stack.enter_context(part.open("wb")) for part in unfinished]
            yield list(streams)
            for stream in streams:
                stream.flush()
                os.fsync(stream.fileno())
        for path in paths[1:]:
            path.unlink(missing_ok=True)
        for part, path in zip(unfinished, paths, strict=True):
            part.replace(path)
    except OSError as error:
        raise DataError(
            f"cannot write {paths[0]}: {error.strerror or error}; name a folder that can be written and has room"
        ) from error
    finally:
        for part in unfinished:
            _forget(part)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace the file at `path` by `content` as indented JSON."""
    with replacing(path) as (stream,):
        stream.write(as_json(content))


def as_json(content: dict[str, Any]) -> bytes:
    """The object as indented JSON, in ASCII."""
    return json.dumps(content, indent=2).encode() + b"\n"


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object; raises DataError if the file is missing or holds anything else."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path} is damaged: it is not JSON ({error}); make it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged: it holds a {type(content).__name__}, not an object; make it again")
    return content


def _forget(unfinished: Path) -> None:
    try:
        unfinished.unlink(missing_ok=True)
    except OSError:
        # The folder itself is gone or unreadable: the error that brought us here already says so.
        return
