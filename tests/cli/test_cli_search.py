"""`formers calibrate --search`: a run with a threshold for each exit, found on held-out text."""

import json
from pathlib import Path

import pytest
from command import QUICK, Cli

from formers.train import load_model

ADAPTIVE = ["dim=16", "depth=3", "heads=2", "hidden=24", "dropout=0"]
FEW = ["--texts", 20, "--prompt", 6, "--max-new", 6]


def train(kind: str, folder: Path, data: list[Path], *more: str) -> Path:
    from formers.cli import main

    run = folder / "run"
    words = ["train", kind, *ADAPTIVE, *more, "--data", *map(str, data), "--out", str(run), "--steps", "20", *QUICK]
    assert main(words) == 0
    return run


@pytest.fixture(scope="module")
def adaptive(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    return train("depth_adaptive_lm", tmp_path_factory.mktemp("adaptive"), [text])


def test_thresholds_are_searched_and_held(cli: Cli, adaptive: Path, text: Path, tmp_path: Path) -> None:
    said = cli("calibrate", adaptive, "--data", text, "--out", tmp_path / "fast", *FEW, "--search", "0.02")
    assert said.code == 0, said.err
    told = json.loads((tmp_path / "fast" / "search.json").read_text())
    assert len(told["thresholds"]) == 2
    assert 1 <= told["exit"] <= 3
    assert f"{told['exit']:.2f} of 3 blocks" in said.out
    assert load_model(tmp_path / "fast").spec.blocks[0].rule.threshold == tuple(told["thresholds"])
    said = cli("generate", tmp_path / "fast", "--prompt", "7 green", "--max-new", 4, "--engine", "torch")
    assert said.code == 0, said.err


def test_blocks_that_cost_too_much_are_not_run(cli: Cli, adaptive: Path, text: Path, tmp_path: Path) -> None:
    said = cli("calibrate", adaptive, "--data", text, "--out", tmp_path / "fast", *FEW, "--search", "9")
    assert said.code == 0, said.err
    assert "after 1.00 of 3 blocks" in said.out


def test_an_encoder_decoder_is_searched_by_pairs(cli: Cli, tmp_path: Path) -> None:
    sides = [tmp_path / "source.txt", tmp_path / "target.txt"]
    for side, word in zip(sides, ("seven green", "sieben grüne"), strict=True):
        side.write_text("".join(f"{word} {'x' * (n % 5)}\n" for n in range(60)))
    run = train("depth_adaptive", tmp_path, sides)
    said = cli("calibrate", run, "--data", *sides, "--out", tmp_path / "fast", "--texts", 8, "--search", "0.02")
    assert said.code == 0, said.err
    assert "of 3 blocks in the mean" in said.out
    said = cli("calibrate", run, "--data", sides[0], "--out", tmp_path / "other", "--texts", 8, "--search", "0.02")
    assert said.code == 1
    assert "SOURCE TARGET for references" in said.err


def test_what_has_no_thresholds_is_refused(cli: Cli, adaptive: Path, text: Path, tmp_path: Path) -> None:
    said = cli("calibrate", adaptive, "--data", text, "--out", tmp_path / "fast", *FEW, "--search", "-1")
    assert said.code == 1
    assert "a block that costs -1" in said.err
    run = train("depth_adaptive_lm", tmp_path, [text], "halting=multinomial")
    said = cli("calibrate", run, "--data", text, "--out", tmp_path / "fast", *FEW, "--search", "0.02")
    assert said.code == 1
    assert "no exits that a threshold" in said.err
