"""`formers demo`, for a third of a second on a small text."""

import re
from pathlib import Path

import pytest
from conftest import Cli

from formers.cli.demo import Beginning
from formers.train import load_model

MINUTES = 0.005


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of some kinds of sentences."""
    folder = tmp_path_factory.mktemp("documents")
    for number in range(40):
        lines = (f"def double_{number}_{i}(value):\n    return {number * i} + 2 * value\n" for i in range(40))
        (folder / f"{number}.py").write_text("\n".join(lines))
    return folder


def test_the_demo_trains_compares_and_writes(cli: Cli, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    code, out, _ = cli("demo", "--data", folder, "--out", run, "--minutes", MINUTES)
    assert code == 0
    told = {
        name: float(bits) for name, bits in re.findall(r"^(the model|xz -9e, \w+).* (\d+\.\d+)$", out, re.MULTILINE)
    }
    assert list(told) == ["the model", "xz -9e, of", "xz -9e, after"]
    assert told["xz -9e, after"] < told["xz -9e, of"] < 8
    assert 0 < told["the model"] < 8
    assert "the model goes on from the first words of the held-out text:\ndef double_" in out
    assert f"the run is in {run}, its loss in {run / 'loss.png'}" in out
    assert (run / "loss.png").is_file() and load_model(run) is not None


def test_the_demo_never_overwrites(cli: Cli, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("kept")
    said = cli("demo", "--data", folder, "--out", tmp_path / "run", "--minutes", MINUTES)
    assert said.code == 0
    assert f"the run is in {tmp_path / 'run-2'}" in said.out
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["precious"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--minutes", "0"], "give --minutes 2"),
        (["--minutes", "nan"], "give --minutes 2"),
        (["--data", "missing"], "missing does not exist"),
        (["--data", "/dev/null"], "holds no text"),
    ],
)
def test_what_cannot_be_demonstrated_is_told(words: list[str], told: str, cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("demo", *words, "--out", tmp_path / "run")
    assert code == 1
    assert told in err


def test_a_text_that_is_too_small_is_told(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("too short to learn from")
    code, _, err = cli("demo", "--data", tmp_path / "short.txt", "--out", tmp_path / "run", "--minutes", MINUTES)
    assert code == 1
    assert "tokens" in err


def test_the_beginning_of_a_collection_can_be_walked_through_twice() -> None:
    beginning = Beginning(["abc", "defg", "hi"], 5)
    assert list(beginning) == list(beginning) == ["abc", "de"]
    assert list(Beginning(["abc"], 5)) == ["abc"]
