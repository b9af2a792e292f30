"""Linformer and FNet on the command line: what is shown of layers without pairs, training, and what is refused."""

from pathlib import Path

import pytest
from command import Cli

TINY = ["dim=16", "depth=2", "heads=2", "hidden=16", "length=32"]


def test_show_says_that_there_are_no_pairs(cli: Cli) -> None:
    code, out, _ = cli("show", "linformer", "slots=(16, 8)", "vocab=40", *TINY)
    assert code == 0
    for layer, slots in ((0, 16), (1, 8)):
        assert f"blocks[{layer}].sublayers[0]\nEvery query meets {slots} slots, sums of all tokens" in out
    code, out, _ = cli("show", "fnet_hybrid", "attend=1", "vocab=40", *TINY)
    assert code == 0 and "Everything()" in out and "A Fourier transform brings every token to every other" in out


def test_plot_draws_the_layers_that_attend_or_says_why_not(cli: Cli, tmp_path: Path) -> None:
    picture = tmp_path / "seen.png"
    code, _, told = cli("show", "fnet", "vocab=40", *TINY, "--plot", picture)
    assert code != 0 and not picture.exists()
    assert "nothing of fnet can be drawn" in told and "there are no pairs to draw; leave --plot out" in told
    assert cli("show", "fnet_hybrid", "attend=1", "vocab=40", *TINY, "--plot", picture)[0] == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["linformer", "fnet", "fnet_hybrid"])
def test_it_learns_to_fill_in_and_is_evaluated(name: str, cli: Cli, tmp_path: Path) -> None:
    text, run = tmp_path / "text.txt", tmp_path / "run"
    text.write_text("what meets what is told by where it stands\n" * 60)
    more = ["slots=4"] if name == "linformer" else ["attend=1"] if name == "fnet_hybrid" else []
    given = ["--data", text, "--out", run, "--length", 32, "--batch", 2, "--steps", 2]
    code, _, told = cli("train", name, *TINY, *more, *given)
    assert code == 0, told
    code, out, _ = cli("eval", run, "--data", text)
    assert code == 0 and "accuracy" in out


def test_rows_longer_than_its_projection_are_refused_before_training(cli: Cli, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("what meets what is told by where it stands\n" * 60)
    given = [
        "--set",
        "embedding.position=none",
        "--data",
        text,
        "--out",
        tmp_path / "run",
        "--length",
        40,
        "--steps",
        2,
    ]
    code, _, told = cli("train", "linformer", "slots=4", *TINY, *given)
    assert code != 0 and "rows of 40 tokens do not fit a model of 32 positions; give --length 32" in told
    assert not (tmp_path / "run").exists()
