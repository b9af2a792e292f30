"""The teacher of a run, which is noted in its folder so that the run goes on under the same."""

import json
from pathlib import Path

from formers.data.atomic import replacing
from formers.errors import CheckpointError
from formers.tasks import Distilled
from formers.train import load_model
from formers.train.task import Task

NOTE = "teacher.json"


def note_teacher(out: Path, teacher: Path, soft: float) -> None:
    """Say in a run folder who teaches."""
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / NOTE) as (stream,):
        stream.write(json.dumps({"run": str(teacher.resolve()), "soft": soft}).encode())


def taught(task: Task, out: Path) -> Task:
    """The task as the run in that folder learns it. Raises CheckpointError if its teacher is not there any more."""
    note = out / NOTE
    if not note.is_file():
        return task
    try:
        told = json.loads(note.read_text(encoding="utf-8"))
        run, soft = Path(told["run"]), float(told["soft"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{note} does not say who teaches: {error}") from error
    return Distilled(task, load_model(run), soft)
