"""`formers calibrate`: a run whose tokens leave early, and what it says of how early they may."""

import json
from pathlib import Path

import pytest
from command import QUICK, Cli

from formers.train import load_model

CALM = ["calm", "dim=16", "depth=3", "heads=2", "hidden=24", "dropout=0"]
FEW = [
    "--texts",
    60,
    "--prompt",
    6,
    "--max-new",
    6,
    "--grid",
    4,
    "--risk",
    0.2,
    "--confidence",
    0.9,
    "--engine",
    "torch",
]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    from formers.cli import main

    run = tmp_path_factory.mktemp("calm") / "run"
    assert main(["train", *CALM, "--data", str(text), "--out", str(run), "--steps", "20", *QUICK]) == 0
    return run


@pytest.mark.parametrize("against", ["full", "references"])
def test_a_run_is_calibrated_and_writes(cli: Cli, calm: Path, text: Path, tmp_path: Path, against: str) -> None:
    said = cli("calibrate", calm, "--data", text, "--out", tmp_path / "fast", *FEW, "--against", against)
    assert said.code == 0, said.err
    told = json.loads((tmp_path / "fast" / "calibration.json").read_text())
    assert told["tried"][0]["threshold"] == 1
    assert (tmp_path / "fast" / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert f"threshold {told['threshold']:g}" in said.out
    spec = load_model(tmp_path / "fast").spec
    assert spec.blocks[0].rule.threshold == told["threshold"]
    assert load_model(calm).spec.blocks[0].rule.threshold is None
    said = cli("generate", tmp_path / "fast", "--prompt", "7 green", "--max-new", 4, "--engine", "torch")
    assert said.code == 0, said.err


def test_too_few_texts_are_told_with_the_number_that_is_needed(
    cli: Cli, calm: Path, text: Path, tmp_path: Path
) -> None:
    said = cli(
        "calibrate", calm, "--data", text, "--out", tmp_path / "fast", "--prompt", 6, "--max-new", 6, "--texts", 40
    )
    assert said.code == 1
    assert "40 texts cannot show a risk of 0.02 with a confidence of 0.95" in said.err
    assert "give 149 or more" in said.err
    assert not (tmp_path / "fast").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--risk", "2"], "a risk lies between 0 and 1"),
        (["--grid", "0"], "--grid 0 leaves nothing to do"),
    ],
)
def test_what_cannot_be_promised_is_refused(
    cli: Cli, calm: Path, text: Path, tmp_path: Path, words: list[str], told: str
) -> None:
    said = cli("calibrate", calm, "--data", text, "--out", tmp_path / "fast", *words)
    assert said.code == 1
    assert told in said.err


def test_a_model_without_exits_is_refused(cli: Cli, trained: Path, text: Path, tmp_path: Path) -> None:
    said = cli("calibrate", trained, "--data", text, "--out", tmp_path / "fast")
    assert said.code == 1
    assert "gpt2 has no exits that a threshold of confidence opens" in said.err
