"""`formers convert`: a dense run becomes a sparse one that goes on like any other run."""

import re
import shutil
from pathlib import Path

import pytest
from command import QUICK, Cli

from formers.train import load_model

SPARSE = ["--to", "sparse", "--block", "8", "--rank", "2", "--modules", "2", "--distil", "3", "--steps", "4"]


def test_a_run_becomes_sparse_and_tells_what_it_cost(cli: Cli, trained: Path, tmp_path: Path) -> None:
    said = cli("convert", trained, *SPARSE, *QUICK, "--out", tmp_path / "sparse")
    assert said.code == 0, said.err
    told = [float(bits) for bits in re.findall(r"^  (?:the dense|sparse layers).* (\d+\.\d+)$", said.out, re.MULTILINE)]
    assert len(told) == 3 and all(bits > 0 for bits in told)
    assert len(re.findall(r"^  stack\.blocks\.\d\.sublayers\.\d +\w+ +\d+\.\d%$", said.out, re.MULTILINE)) == 4
    assert "SparseFF(" in repr(load_model(tmp_path / "sparse").spec)
    assert cli("eval", tmp_path / "sparse").code == 0
    assert cli("generate", tmp_path / "sparse", "--prompt", "7 ", "--max-new", "3").code == 0


def test_it_goes_on_where_it_was_stopped(cli: Cli, trained: Path, tmp_path: Path) -> None:
    assert cli("convert", trained, *SPARSE, *QUICK, "--out", tmp_path / "sparse").code == 0
    assert cli("train", "--resume", "--out", tmp_path / "sparse").code == 0


def test_a_run_without_data_learns_from_what_is_given(cli: Cli, trained: Path, text: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(trained, bare)
    shutil.rmtree(bare / "data")
    said = cli("convert", bare, *SPARSE, *QUICK, "--out", tmp_path / "sparse")
    assert (said.code, "name text with --data" in said.err) == (1, True)
    assert cli("convert", bare, *SPARSE, *QUICK, "--data", text, "--out", tmp_path / "sparse").code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--block", "0", "--modules", "0"], "no dense layer that is to become sparse"),
        (["--modules", "3"], "do not split into 3 modules"),
        (["--rank", "0"], "a controller of rank 0 sees nothing"),
        (["--distil", "0"], "give --distil 300"),
    ],
)
def test_what_cannot_be_converted_is_told(words: list[str], told: str, cli: Cli, trained: Path, tmp_path: Path) -> None:
    code, _, err = cli("convert", trained, *SPARSE, *words, *QUICK, "--out", tmp_path / "sparse")
    assert (code, told in err) == (1, True), err


def test_a_run_is_not_written_over(cli: Cli, trained: Path) -> None:
    code, _, err = cli("convert", trained, *SPARSE, *QUICK, "--out", trained)
    assert (code, "holds a run already" in err) == (1, True)
