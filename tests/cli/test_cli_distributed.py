"""torchrun starts workers anew when one is killed, and the run ends with the loss that it would have had."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command import QUICK, TEXT, TINY, Cli

from formers.train.metrics import read_metrics

LIMIT = 240  # seconds: three times PyTorch is loaded one behind the other
WORDS = [*TINY, *QUICK, "--steps", "40", "--checkpoint-every", "10", "--evaluate-every", "100"]


def losses(run: Path) -> torch.Tensor:
    rows = read_metrics(run / "metrics.jsonl")
    return torch.tensor([[row["step"], row["loss"]] for row in rows if row["kind"] == "train"], dtype=torch.float64)


def workers(launcher: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the workers of a launcher as Linux tells them")
def test_a_worker_that_is_killed_costs_nothing_but_time(tmp_path: Path, cli: Cli) -> None:
    text, run = tmp_path / "text.txt", tmp_path / "several"
    text.write_text(TEXT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*WORDS, "--data", str(text)]
    launcher = subprocess.Popen(
        [*launch, "--max-restarts", "1", "-m", "formers", "train", *words, "--out", str(run), "--shard", "full"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + LIMIT
        while not list(run.glob("checkpoints/step-??????")) and launcher.poll() is None:
            assert time.monotonic() < deadline, "no checkpoint was saved in time"
            time.sleep(0.02)
        killed = workers(launcher.pid)
        os.kill(killed[-1], signal.SIGKILL)
        said, _ = launcher.communicate(timeout=LIMIT)
    finally:
        for pid in [*workers(launcher.pid), launcher.pid] if launcher.poll() is None else []:
            os.kill(pid, signal.SIGKILL)
    assert launcher.returncode == 0, said
    assert "going on with the data that the run began with" in said, "it ended before a worker was killed"
    assert said.count("the run is in") == 1
    assert not [pid for pid in killed if Path(f"/proc/{pid}").exists()]
    assert cli("train", *words, "--out", str(tmp_path / "one")).code == 0
    torch.testing.assert_close(losses(run), losses(tmp_path / "one"), rtol=1e-4, atol=0.0)
