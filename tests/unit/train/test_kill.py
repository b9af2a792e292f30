"""Whenever a run is killed, no checkpoint is half-written, and what it comes to in the end is the same."""

import json
import subprocess
import sys
from pathlib import Path

from killed_run import SPEC
from tiny_run import TEXT, tiny_model

from formers.tasks import Causal, prepare
from formers.train import train
from formers.train.metrics import read_metrics


def losses(run):
    return [(row["step"], row["loss"]) for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "train"]


def test_a_run_that_is_killed_again_and_again_ends_as_if_it_never_was(tmp_path, quiet):
    program = Path(__file__).with_name("killed_run.py")
    done = subprocess.run(
        [sys.executable, program, tmp_path / "killed", "0", "8"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert len({names[0] for names in seen if names}) > 2, "the kills hit too few moments to mean anything"
    for names in seen:
        assert sum(name.endswith(".tmp") for name in names) <= 1
        assert sum(not name.endswith(".tmp") for name in names) <= SPEC.keep + 1
    prepared = prepare([TEXT], tmp_path / "whole" / "data")
    train(tiny_model(), Causal(prepared, SPEC), SPEC, tmp_path / "whole", console=quiet)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert sorted(path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()) == [
        "step-000039",
        "step-000040",
    ]
