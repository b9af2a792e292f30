"""Learned spans on the command line: told while training, by `formers eval`, and head by head by `formers show`."""

import re
from pathlib import Path

import pytest
from command import QUICK, Cli

from formers.cli import main

TINY = ["adaptive_span", "dim=16", "depth=2", "heads=2", "hidden=16", "span=200", "ramp=8", "begin=0.1", "dropout=0"]


@pytest.fixture(scope="module")
def spanned(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    run = tmp_path_factory.mktemp("spanned") / "run"
    words = ["train", *TINY, "--data", text, "--out", run, "--steps", 2, *QUICK]
    assert main([str(word) for word in words]) == 0
    return run


def test_evaluations_tell_the_mean_span(cli: Cli, text: Path, tmp_path: Path, spanned: Path) -> None:
    said = cli("train", *TINY, "--data", text, "--out", tmp_path / "run", "--steps", 1, *QUICK)
    told = re.search(r"mean span (\d+\.\d), 0% of scores saved", said.err)
    assert said.code == 0 and told and 15 < float(told[1]) < 25
    said = cli("eval", spanned)
    assert said.code == 0 and "mean span of a head, in tokens" in said.out
    assert "share of attention's scores that short spans save" in said.out


def test_show_tells_the_spans_of_a_run_and_of_nothing_else(cli: Cli, spanned: Path) -> None:
    out = cli("show", spanned, "--length", 400).out
    row = next(line.split() for line in out.splitlines() if line.endswith("blocks[1].sublayers[0]") and "%" in line)
    assert all(abs(int(span) - 20) <= 3 for span in row[:2]) and row[2] == "200"
    assert "scores saved at 400" in out
    for words in (TINY, [spanned, "--set", "blocks[0].sublayers[0].ramp=9"]):
        said = cli("show", *words)
        assert said.code == 0 and "span of each head" not in said.out
    assert '"spans"' in cli("show", spanned, "--json").out
