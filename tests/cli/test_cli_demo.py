"""`formers demo`, for a third of a second on a small text."""

import re
from pathlib import Path

import pytest
from command import Cli

from formers.cli.demo import twins
from formers.data.source import Beginning
from formers.family.equal import size
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


def test_the_demo_trains_compares_draws_and_writes(cli: Cli, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    code, said, _ = cli("demo", "--data", folder, "--out", out, "--minutes", MINUTES)
    assert code == 0
    lines = re.findall(r"^(dense|terraformer|xz -9e, \w+).*? (\d\.\d+) *([\d,]*)$", said, re.MULTILINE)
    told = {name: (float(bits), speed) for name, bits, speed in lines}
    assert list(told) == ["dense", "terraformer", "xz -9e, of", "xz -9e, after"]
    assert told["xz -9e, after"][0] < told["xz -9e, of"][0] < 8
    for name in ("dense", "terraformer"):
        assert 0 < told[name][0] < 9 and int(told[name][1].replace(",", "")) > 0
        assert (out / name / "loss.png").is_file() and load_model(out / name) is not None
    assert "terraformer goes on from the first words of the held-out text:\ndef double_" in said
    assert (out / "twins.png").read_bytes().startswith(b"\x89PNG")


def test_the_twins_are_of_one_size() -> None:
    dense, sparse = (size(spec) for spec in twins(2048).values())
    assert abs(sparse / dense - 1) < 0.02


def test_the_demo_never_overwrites(cli: Cli, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("kept")
    said = cli("demo", "--data", folder, "--out", tmp_path / "run", "--minutes", MINUTES)
    assert said.code == 0
    assert f"the runs are in {tmp_path / 'run-2'}" in said.out
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["precious"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--minutes", "0"], "give --minutes 4"),
        (["--minutes", "nan"], "give --minutes 4"),
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
