"""Runs in several processes are those of one, whatever number a checkpoint came from; and all end together."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from formers.train import load_model

HERE = Path(__file__).parent
LIMIT = 600
ALIKE = {"one": ["two", "four, sharded", "from four to two", "from one to four, sharded"]}
ALIKE["stream of one"] = ["stream of two", "stream from two to four", "stream from two to one"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    root = tmp_path_factory.mktemp("runs")
    done = subprocess.run(
        [sys.executable, HERE / "same_run.py", root],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parent / "train")))},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *before, last = done.stdout.splitlines()
    return root, json.loads(last), "\n".join(before)


@pytest.mark.parametrize("name", list(ALIKE))
def test_losses_do_not_depend_on_how_many_processes_there_are(name: str, made: Any) -> None:
    _, told, _ = made
    expected = torch.tensor(told[name], dtype=torch.float64)
    for other in ALIKE[name]:
        assert set(told.get(f"codes of {other}", [0])) == {0}
        torch.testing.assert_close(torch.tensor(told[other], dtype=torch.float64), expected, rtol=2e-6, atol=1e-6)


def test_a_checkpoint_of_several_processes_is_a_checkpoint(made: Any) -> None:
    root, _, _ = made
    expected = load_model(root / "one").state_dict()
    torch.testing.assert_close(load_model(root / "four, sharded").state_dict(), expected, rtol=1e-3, atol=1e-5)


def test_what_goes_wrong_is_told_once_and_ends_all(made: Any) -> None:
    root, told, said = made
    assert told["codes of diverged"] == [1, 1]
    assert said.count("formers:") == 1 and "train again with a lower learning rate" in said
    assert not list((root / "diverged" / "checkpoints").iterdir())


def test_what_several_processes_cannot_do_is_refused_with_a_mend(made: Any) -> None:
    _, told, said = made
    refused = dict(json.loads(line) for line in said.splitlines() if line.startswith("["))
    assert told["codes of refusals"] == [0, 0]
    assert "does not split equally over 2 processes; give --batch 8" in refused["rows"]
    assert "in 2 pieces each; give --batch 8" in refused["pieces"]
    assert "2 processes do not make groups of 3" in refused["groups"]
    assert "3 experts cannot be divided equally over 2 processes" in refused["experts"]
    assert "this model has none" in refused["no experts"]
    assert "leave --compile out" in refused["compile"]
