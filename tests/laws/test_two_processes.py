"""Every member trains in several processes, its parameters divided among them, as it does in one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from formers import MEMBERS

HERE = Path(__file__).parent
FORKS = HERE.parent / "unit" / "distributed"  # `ranks`, which meet
LIMIT = 600


def test_several_processes_lose_what_one_loses() -> None:
    done = subprocess.run(
        [sys.executable, HERE / "two_processes.py"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (HERE, FORKS)))},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert {name for name, _, found in told if isinstance(found, str)} == set(), done.stdout
    for _, alone, found in told:
        torch.testing.assert_close(torch.tensor(found), torch.tensor(alone), rtol=1e-9, atol=0.0)
    assert {name for name, _, _ in told} == {*MEMBERS, "data", "full"}, done.stderr
    assert done.returncode == 0, done.stderr
