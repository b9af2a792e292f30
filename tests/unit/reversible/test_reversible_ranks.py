"""Gradients leave a reversible stack by autograd, so that those who wait for them, as DDP does, are told."""

import os
import subprocess
import sys
from pathlib import Path

import reversible_rank
import torch
from safetensors.torch import load_file


def test_two_processes_average_their_gradients(tmp_path: Path) -> None:
    files = [str(tmp_path / f"rank{rank}.safetensors") for rank in range(2)]
    ranks = [
        subprocess.Popen(
            [sys.executable, reversible_rank.__file__, str(rank), str(tmp_path / "store"), files[rank]],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    built = reversible_rank.model()
    reversible_rank.results(built, reversible_rank.tokens())
    for file in files:
        found = load_file(file)
        for name, parameter in built.named_parameters():
            torch.testing.assert_close(2 * found[name], parameter.grad, atol=1e-9, rtol=1e-9)
