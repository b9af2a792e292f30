"""Moments of eight bits a number: smaller, saved and read back exactly, and one clear error where the package is missing."""

import sys

import pytest
import torch
from safetensors import safe_open
from tiny_run import tiny_model, tiny_spec

from formers.errors import ConfigError
from formers.train import AdamW8bit, train
from formers.train.metrics import read_metrics


def losses(run) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "train"]


@pytest.mark.filterwarnings("ignore")
def test_a_run_with_eight_bit_moments_goes_on_exactly(tmp_path, task, quiet) -> None:
    pytest.importorskip("bitsandbytes")
    spec = tiny_spec(optimizer=AdamW8bit(), checkpoint_every=3)
    train(tiny_model(dim=64), task(spec), spec, tmp_path / "whole", console=quiet)
    train(tiny_model(dim=64), task(spec), spec.replace(keep=3), tmp_path / "parts", console=quiet)
    last = sorted((tmp_path / "parts" / "checkpoints").iterdir())[-1]
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    train(tiny_model(1, dim=64), task(spec), spec, tmp_path / "parts", resume=True, console=quiet)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    with safe_open(tmp_path / "whole" / "checkpoints" / "step-000006" / "optimizer.safetensors", "pt") as file:
        kinds = {file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118
    assert torch.uint8 in kinds


def test_without_the_package_there_is_one_clear_error(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match="pip install bitsandbytes"):
        AdamW8bit().build(torch.nn.Linear(2, 2))
