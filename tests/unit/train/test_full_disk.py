"""A disk that fills up in the middle of a run costs the updates since the last checkpoint, and no more."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import tiny_model, tiny_spec

from formers.tasks import Causal
from formers.train import train
from formers.train.checkpoint import require_whole
from formers.train.metrics import read_metrics

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")


def told(run: Path, full_at: int, room: int) -> str:
    """The error of a run whose files may have no more than `room` bytes from update `full_at` on."""
    program = Path(__file__).with_name("filling_run.py")
    words = [sys.executable, program, run, str(full_at), str(room)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


def test_the_run_stops_clearly_and_goes_on_when_there_is_room(tmp_path, prepared, quiet):
    spec, run = tiny_spec(checkpoint_every=2), tmp_path / "run"
    error = told(run, full_at=5, room=20_000)
    assert "step-000006 cannot be written: " in error and "File too large" in error and "earlier checkpoints" in error
    left = sorted((run / "checkpoints").iterdir())
    assert [path.name for path in left] == ["step-000002", "step-000004"]
    for checkpoint in left:
        require_whole(checkpoint)
    train(tiny_model(seed=3), Causal(prepared, spec), spec, run, console=quiet, resume=True)
    train(tiny_model(), Causal(prepared, spec), spec, tmp_path / "whole", console=quiet)
    losses = [
        [row["loss"] for row in read_metrics(folder / "metrics.jsonl") if row["kind"] == "train"]
        for folder in (run, tmp_path / "whole")
    ]
    assert len(losses[0]) == spec.steps and losses[0] == losses[1]


def test_metrics_that_cannot_be_written_stop_the_run_clearly(run):
    assert "metrics.jsonl cannot be written: File too large" in told(run, full_at=1, room=10)
