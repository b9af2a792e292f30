"""`formers convert --to dense`: a run with experts is distilled into one without, which goes on under its teacher."""

import re
import shutil
from pathlib import Path

import pytest
from command import QUICK, Cli

from formers.cli import main
from formers.train import load_model

DENSE = ["--to", "dense", "--steps", "4"]
SWITCH = ["switch", "dim=16", "depth=2", "heads=2", "hidden=32", "experts=3", "length=64", "dropout=0"]


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    run = tmp_path_factory.mktemp("experts") / "run"
    assert main(["train", *SWITCH, "--data", str(text), "--out", str(run), "--steps", "6", *QUICK]) == 0
    return run


def test_a_run_with_experts_becomes_dense(cli: Cli, experts: Path, tmp_path: Path) -> None:
    said = cli("convert", experts, *DENSE, *QUICK, "--out", tmp_path / "dense")
    assert said.code == 0, said.err
    assert len(re.findall(r"^  (?:with experts|dense) +\d+\.\d+$", said.out, re.MULTILINE)) == 2
    assert "Switch(" not in repr(load_model(tmp_path / "dense").spec)
    assert cli("generate", tmp_path / "dense", "--prompt", "7 ", "--max-new", "3").code == 0


def test_it_goes_on_under_its_teacher_or_not_at_all(cli: Cli, experts: Path, tmp_path: Path) -> None:
    teacher, out = tmp_path / "teacher", tmp_path / "dense"
    shutil.copytree(experts, teacher)
    assert cli("convert", teacher, *DENSE, *QUICK, "--out", out).code == 0
    assert cli("train", "--resume", "--out", out).code == 0
    shutil.rmtree(teacher)
    code, _, err = cli("train", "--resume", "--out", out)
    assert (code, str(teacher) in err) == (1, True), err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--soft", "0"], "is a share of the loss"),
        (["--block", "8"], "is not for --to dense"),
        (["--set", "name=x"], "--set is for long texts"),
    ],
)
def test_what_cannot_be_distilled_is_told(words: list[str], told: str, cli: Cli, experts: Path, tmp_path: Path) -> None:
    code, _, err = cli("convert", experts, *DENSE, *words, *QUICK, "--out", tmp_path / "dense")
    assert (code, told in err) == (1, True), err


def test_a_dense_run_is_told_that_it_is_dense(cli: Cli, trained: Path, tmp_path: Path) -> None:
    code, _, err = cli("convert", trained, *DENSE, *QUICK, "--out", tmp_path / "dense")
    assert (code, "is dense" in err) == (1, True), err
