"""A model with a memory on the command line: trained on streams, and evaluated with a longer memory."""

import re
from pathlib import Path

import pytest
from command import QUICK, Cli

from formers.cli import main

TINY = ["transformer_xl", "dim=16", "depth=2", "heads=2", "hidden=16", "segment=16", "memory=16", "dropout=0"]


@pytest.fixture(scope="module")
def remembering(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    run = tmp_path_factory.mktemp("remembering") / "run"
    words = ["train", *TINY, "--set", "init.std=0.4", "--data", text, "--out", run, "--steps", 20, *QUICK]
    assert main([str(word) for word in words]) == 0
    return run


def bits(out: str) -> float:
    return float(re.search(r"bits per byte +(\d+\.\d+)", out)[1])


def test_a_state_is_saved_with_the_run(remembering: Path) -> None:
    (last,) = (remembering / "checkpoints").glob("step-000020")
    assert (last / "carried.safetensors").is_file()


def test_the_memory_can_be_longer_than_in_training(cli: Cli, remembering: Path) -> None:
    plain, same = cli("eval", remembering), cli("eval", remembering, "--memory", 16)
    assert plain.code == same.code == 0 and plain.out == same.out
    longer, clamped = cli("eval", remembering, "--memory", 40), cli("eval", remembering, "--memory", 40, "--clamp", 20)
    assert len({bits(said.out) for said in (plain, longer, clamped)}) == 3


def test_a_memory_that_cannot_be_is_one_error(cli: Cli, remembering: Path, trained: Path) -> None:
    for words, what in (
        ((trained, "--memory", 64), "its positions are absolute"),
        ((remembering, "--memory", 0), "remembers nothing"),
        ((remembering, "--memory", 10**7), "would never be full: give a shorter one"),
        ((remembering, "--clamp", 10), "--clamp goes with another memory"),
    ):
        said = cli("eval", *words)
        assert said.code != 0 and what in said.err and "Traceback" not in said.err
