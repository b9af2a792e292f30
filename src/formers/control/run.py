"""The note in the folder of a run that acts: which member it is of, and in which environment it learned."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from formers.data.atomic import read_json, write_json
from formers.errors import CheckpointError, DataError
from formers.train.run import run_folder

NOTE = "control.json"


@dataclass(frozen=True)
class Note:
    """member: what was trained. environment: the id by which Gymnasium makes it. more: what the member wants to know."""

    member: str
    environment: str
    more: dict[str, Any] = field(default_factory=dict)


def write_note(run: Path, note: Note) -> None:
    """Write the note into the folder of a run. Raises DataError where the disk refuses."""
    write_json(run / NOTE, asdict(note))


def read_note(run: Path) -> Note:
    """The note of a run, or of the run that a checkpoint belongs to. Raises CheckpointError where there is none."""
    path = run_folder(run) / NOTE
    if not path.is_file():
        raise CheckpointError(f"{run} is no run of `formers control train`: it has no {NOTE}")
    try:
        told = read_json(path)
        return Note(str(told["member"]), str(told["environment"]), dict(told["more"]))
    except (DataError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}; train again") from error
