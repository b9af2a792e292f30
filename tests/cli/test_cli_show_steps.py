"""`formers show --text` of a model whose tokens halt or leave: how many steps or blocks each token of a text took."""

from pathlib import Path

import pytest
import torch
from command import QUICK, Cli

from formers import make
from formers.report.ponder import Ponder, drawn, pondered

SMALL = ["dim=16", "heads=2", "hidden=32", "steps=8", "vocab=257", "dropout=0"]
TEXT = "the cat sat"


def test_each_token_has_the_number_of_its_steps_below_it(cli: Cli) -> None:
    code, out, err = cli("show", "universal", *SMALL, "--text", TEXT)
    assert (code, err) == (0, "")
    note, path, above, below, told = out.splitlines()
    assert (note, path) == ("an untrained model: its weights are random, and each byte is a token", "blocks[0]")
    assert above.split() == [letter.replace(" ", "\N{OPEN BOX}") for letter in TEXT]
    steps = [int(number) for number in below.split()]
    assert told.startswith(f"{sum(steps) / 11:.1f} steps to a token in the mean, from {min(steps)} to {max(steps)}, ")


def test_the_steps_are_those_of_the_model_at_every_depth() -> None:
    torch.manual_seed(0)
    small = {"vocab": 40, "dim": 16, "heads": 2, "hidden": 16, "steps": 9}
    model, tokens = make("universal_encoder_decoder", **small).build().eval(), [3, 1, 4, 1, 5]
    source, target = pondered(model, tokens)
    assert (source.path, target.path) == ("source.blocks[0]", "target.blocks[0]")
    taken = model(torch.tensor([tokens]), torch.tensor([tokens])).records
    assert [source.steps, target.steps] == [
        tuple(taken[f"{side}.steps"][0][0].tolist()) for side in ("source", "target")
    ]


def test_blocks_before_a_token_left_are_drawn_alike(cli: Cli, tmp_path: Path) -> None:
    small, picture = ["dim=16", "heads=2", "hidden=32", "depth=3", "vocab=257"], tmp_path / "exits.png"
    code, out, err = cli("show", "depth_adaptive_lm", *small, "--text", TEXT, "--plot", picture)
    assert (code, err) == (0, "")
    _, path, _, below, told = out.splitlines()
    leaves = [int(number) for number in below.split()]
    assert path == "blocks[0]"
    assert told.startswith(
        f"{sum(leaves) / 11:.1f} blocks to a token in the mean, from {min(leaves)} to {max(leaves)}, "
    )
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_exits_are_drawn_of_the_side_that_has_them() -> None:
    small = {"vocab": 40, "dim": 16, "heads": 2, "hidden": 16, "depth": 3}
    model, tokens = make("depth_adaptive", **small).build().eval(), [3, 1, 4, 1, 5]
    (target,) = pondered(model, tokens)
    taken = model(torch.tensor([tokens]), torch.tensor([tokens])).records["target.leaves"]
    assert (target.path, target.most, target.unit) == ("target.blocks[0]", 3, "blocks")
    assert target.steps == tuple(taken[0][0].tolist())


def test_a_line_of_tokens_ends_before_the_terminal_does() -> None:
    lines = drawn(Ponder("blocks[0]", 12, (12, 3) * 40), ["ab", "cde"] * 40).plain.splitlines()
    assert [line.split() for line in lines[:2]] == [["ab", "cde"] * 13 + ["ab"], ["12", "3"] * 13 + ["12"]]
    assert lines[2] == ""
    assert max(map(len, lines)) <= 96


def test_a_run_is_drawn_with_its_own_tokens_and_as_a_picture(cli: Cli, text: Path, tmp_path: Path) -> None:
    run, picture = tmp_path / "run", tmp_path / "steps.png"
    learns = ["--data", str(text), "--tokenizer", "characters", "--out", str(run), "--steps", "2", *QUICK]
    assert cli("train", "universal", *SMALL, *learns).code == 0
    code, out, err = cli("show", run, "--text", "9 green bottles", "--plot", picture)
    assert (code, err) == (0, "")
    assert out.startswith("blocks[0]\n9 \N{OPEN BOX} g r")
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["ponder=none", "--text", TEXT], "has no attention whose pairs are chosen by content"),
        (["--text", TEXT, "--head", "0"], "has no attention whose pairs are chosen by content"),
        (["--text", ""], "an empty text has no tokens"),
        (["ponder=-1", "--text", TEXT], "would reward more steps"),
    ],
)
def test_what_cannot_be_drawn_is_told(words: list[str], told: str, cli: Cli) -> None:
    code, out, err = cli("show", "universal", *SMALL, *words)
    assert (code, out) == (1, "")
    assert told in err
