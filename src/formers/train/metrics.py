"""The diary of a run: one JSON object per line, which survives a killed process."""

import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from formers.data.atomic import replacing
from formers.errors import CheckpointError

Row = dict[str, Any]


class MetricsLog:
    """Appends rows to a file of JSON lines. Raises CheckpointError where the disk refuses."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> "MetricsLog":
        try:
            self._stream = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise self._refusal(error) from error
        return self

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows; when this returns, killing the process does not lose them."""
        try:
            self._stream.write("".join(json.dumps(row) + "\n" for row in rows))
            self._stream.flush()
        except OSError as error:
            raise self._refusal(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stream.close()
        except OSError as broken:
            if error is None:
                raise self._refusal(broken) from broken

    def _refusal(self, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"{self.path} cannot be written: {error.strerror or error}; make room and resume the run"
        )


def read_metrics(path: Path) -> list[Row]:
    """The rows of a diary; a last line that was cut short is left out. Raises CheckpointError if it is missing."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror or error}; is this the folder of a run?"
        ) from error
    try:
        return [json.loads(line) for line in lines if line.endswith("\n")]
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is damaged: a line of it is not JSON ({error}); remove that line") from error


def rewind(path: Path, step: int) -> None:
    """Forget what was written after the checkpoint of a step was saved: a run that goes on writes it again."""
    if not path.exists():
        return
    kept = [row for row in read_metrics(path) if row["step"] < step or (row["step"] == step and row["kind"] == "train")]
    with replacing(path) as (stream,):
        stream.write("".join(json.dumps(row) + "\n" for row in kept).encode())
