"""What the tests of the command line share: running it in this process, and a run that was trained by it."""

from pathlib import Path

import pytest
from command import QUICK, TEXT, TINY, Cli, Said

from formers.cli import main


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: object) -> Said:
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "bottles.txt"
    file.write_text(TEXT)
    return file


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    """A run of 12 steps. Tests read it, and copy it before they break it."""
    run = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", *TINY, "--data", str(text), "--out", str(run), "--steps", "12", *QUICK]) == 0
    return run


@pytest.fixture(scope="session")
def translating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an encoder-decoder that is to double every letter."""
    folder = tmp_path_factory.mktemp("translating")
    words = [f"{'abcdefgh'[i % 8]}{'klmn'[i // 8 % 4]}{i % 7}" for i in range(60)]
    (folder / "source").write_text("".join(f"{word}\n" for word in words))
    (folder / "target").write_text("".join(f"{''.join(2 * letter for letter in word)}\n" for word in words))
    model = ["transformer", "dim=16", "depth=1", "heads=2", "hidden=32", "dropout=0"]
    data = ["--data", str(folder / "source"), str(folder / "target"), "--tokenizer", "bytes"]
    assert main(["train", *model, *data, "--out", str(folder / "run"), "--steps", "6", *QUICK]) == 0
    return folder / "run"
