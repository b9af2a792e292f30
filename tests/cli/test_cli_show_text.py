"""`formers show --text`: which tokens of a text meet."""

from pathlib import Path
from typing import Any

import pytest
import torch
from command import QUICK, Cli

from formers import Attention, Block, Decoder, TopBlocks, make
from formers.call import Call, Layer, Out
from formers.cli import main
from formers.report.abilities import streams_exactly
from formers.spec.core import Site

SMALL = ["dim=16", "depth=4", "heads=2", "hidden=32", "vocab=257", "dropout=0"]
HASHED = ["chunk=2", "rounds=2", "buckets=4", "local_chunk=4", "shape=(8,8)"]
REFORMER = ["reformer", *SMALL, *HASHED]
PLAIN = ["dim=16", "depth=2", "heads=2", "kv_heads=2", "hidden=32", "vocab=257"]
FIRST = "blocks[0].blocks[2].sublayers[0]"
TEXT = "the cat sat on the mat"


@pytest.fixture(scope="module")
def hashing(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    """A run of a Reformer, its tokens characters."""
    run = tmp_path_factory.mktemp("hashing") / "run"
    learns = ["--data", str(text), "--tokenizer", "characters", "--out", str(run), "--steps", "2", *QUICK]
    assert main(["train", *REFORMER, *learns]) == 0
    return run


def test_a_text_is_drawn_token_by_token(cli: Cli) -> None:
    code, out, err = cli("show", *REFORMER, "--text", TEXT)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == [FIRST, "an untrained model: its weights are random, and each byte is a token"]
    assert lines[2:4] == [
        "LSH(chunk=2, rounds=2, buckets=4) within Causal(), head 0",
        "22 tokens; queries down, keys across",
    ]
    assert lines[4] == "'t'  ██" + "· " * 20 + "·"
    assert [line[1] for line in lines[4:26]] == list(TEXT)
    assert "pairs meet, " in lines[26] and "of those that Causal() shows" in lines[26]
    assert "buckets of the first hash:" in out
    assert cli("show", *REFORMER, "--text", TEXT).out == out


def test_another_layer_and_head_can_be_drawn(cli: Cli) -> None:
    words = ["show", *REFORMER, "depth=8", "--text", TEXT]
    out = cli(*words).out
    assert f"also choosing by content (--layer): {FIRST.replace('2', '6')}" in out
    other = cli(*words, "--layer", FIRST.replace("2", "6"), "--head", 1).out
    assert other.startswith(FIRST.replace("2", "6")) and "Causal(), head 1" in other


def test_a_run_is_drawn_with_its_weights_and_tokens(cli: Cli, hashing: Path) -> None:
    code, out, err = cli("show", hashing, "--text", "9 green bottles, and 81 more")
    assert (code, err) == (0, "")
    assert "untrained" not in out and "'9'  ██" in out
    assert "leave out --set or --text" in cli("show", hashing, "--text", "9", "--set", "norm=none").err


def test_a_long_text_is_drawn_in_cells_and_as_a_picture(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("show", *REFORMER, "shape=(16,16)", "--text", 8 * TEXT, "--plot", tmp_path / "meet.png")
    assert code == 0
    assert "176 tokens, 6 x 6 to a cell, the darkest of which shows" in out
    assert (tmp_path / "meet.png").read_bytes().startswith(b"\x89PNG")


def test_a_text_too_short_to_be_hashed_is_told(cli: Cli) -> None:
    words = ["show", *REFORMER, "chunk=8", "--text", TEXT]
    out = cli(*words).out
    assert (
        "all that Causal() shows: LSH(chunk=8, rounds=2, buckets=4) chooses nothing in texts of up to 32 tokens" in out
    )
    fix = f"{FIRST}.select.plain_below=0"
    assert f'--set "{fix}"' in out
    assert "LSH(chunk=8, rounds=2, buckets=4, plain_below=0) within" in cli(*words, "--set", fix).out


def test_blocks_and_clusters_are_drawn(cli: Cli) -> None:
    select = "blocks[0].sublayers[0].select=TopBlocks(block=4, count=1)"
    assert "TopBlocks(block=4, count=1) within" in cli("show", "llama", *PLAIN, "--set", select, "--text", TEXT).out
    out = cli("show", "routing_transformer", *SMALL, "clusters=3", "window=4", "--text", TEXT).out
    assert out.startswith("blocks[0].sublayers[0].layers[1]\n")
    assert "the largest of 3 clusters:" in out or "the largest of 2 clusters:" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "an empty text has no tokens"),
        (["--text", TEXT * 3], "the text has 66 tokens and reformer has 64 positions"),
        (["--text", TEXT, "--layer", "blocks[0].blocks[1].sublayers[0]"], "chooses no pairs by content: did you mean"),
        (["--text", TEXT, "--layer", "blocks[0].block[2].sublayers[0]"], f"did you mean {FIRST!r}?"),
        (["--text", TEXT, "--layer", "norm"], f"norm is no attention of reformer: one of {FIRST}"),
        (["--text", TEXT, "--head", "2"], f"there is no head 2: {FIRST} has 2, counted from 0"),
        (["--text", TEXT, "--head", "-1"], "there is no head -1"),
        (["--text", TEXT, "--json"], "leave out --json or --text"),
        (["--text", TEXT, "--length", "8"], "leave out --length or --text"),
        (["--text", TEXT, "--set", "vocab=99"], "the tokenizer has 256 ids and the model knows 99"),
    ],
)
def test_what_cannot_be_drawn_is_told(words: list[str], told: str, cli: Cli) -> None:
    code, out, err = cli("show", *REFORMER, *(words or ["--text", ""]))
    assert (code, out) == (1, "")
    assert told in err


@pytest.mark.parametrize("option", [["--layer", FIRST], ["--head", "0"]])
def test_options_of_a_text_want_one(option: list[str], cli: Cli) -> None:
    assert "give --text as well" in cli("show", *REFORMER, *option).err


def test_a_model_that_chooses_nothing_says_who_does(cli: Cli) -> None:
    code, out, err = cli("show", "gpt2", "--text", TEXT)
    assert (code, out) == (1, "")
    assert "gpt2 has no attention whose pairs are chosen by content" in err and "reformer" in err
    assert "--set 'blocks[0].sublayers[0].select=TopBlocks(block=4, count=2)'" in err


def test_a_member_that_is_too_shallow_to_choose_says_so(cli: Cli) -> None:
    code, out, err = cli("show", "reformer", "dim=16", "depth=2", "heads=2", "hidden=16", "--text", TEXT)
    assert (code, out) == (1, "")
    assert "of this depth and with these layers reformer has no attention whose pairs are chosen by content" in err


def test_without_a_text_no_wrong_picture_is_drawn(cli: Cli, tmp_path: Path) -> None:
    out = cli("show", *REFORMER).out
    assert f"{FIRST}\nCausal(), of which the pairs are chosen by content\nby LSH(" in out
    assert "training runs " in out and "of the operations a token once more" in out
    assert out.count("queries down, keys across") == 1
    words = ["routing_transformer", *SMALL, "clusters=3", "window=4"]
    assert "by Routing(clusters=3, window=4)" in cli("show", *words).out
    select = "blocks[*].sublayers[0].select=TopBlocks(block=4, count=1)"
    told = cli("show", "llama", *PLAIN, "--set", select, "--plot", tmp_path / "none.png")
    assert told.code == 1 and "pattern can be drawn without a text; leave --plot out" in told.err


def test_sorting_is_told_in_words(cli: Cli) -> None:
    sinkhorn = "blocks[*].sublayers[0]=SinkhornAttention(heads=2, block=4)"
    out = cli("show", "llama", *PLAIN, "--set", sinkhorn).out
    assert "by SinkhornAttention(heads=2, block=4): each block meets itself and a soft mixture of others" in out
    assert "no attention whose pairs are chosen" in cli("show", "llama", *PLAIN, "--set", sinkhorn, "--text", "x").err


def test_the_list_tells_what_streams_exactly(cli: Cli) -> None:
    rows = {line.split()[0]: line.split() for line in cli("list").out.splitlines() if line}
    assert rows["reformer"][-2:] == ["yes", "no"] and "log" in rows["reformer"]
    assert rows["routing_transformer"][-2:] == ["yes", "yes"]
    assert streams_exactly(make("reformer", strict=True)) == "yes"


class Renamed(Layer):
    """A layer of somebody's own, whose module is not named as its field is."""

    attention: Attention

    def build(self, site: Site) -> torch.nn.Module:
        return RenamedLayer(self, site)


class RenamedLayer(torch.nn.Module):
    def __init__(self, spec: Renamed, site: Site) -> None:
        super().__init__()
        self.other = spec.attention.build(site)

    def forward(self, x: torch.Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        out: Out = self.other(x, call, state, choices)
        return out


def test_a_layer_that_cannot_be_told_from_its_path_is_no_crash(cli: Cli, tmp_path: Path) -> None:
    block = Block((Renamed(Attention(2, select=TopBlocks(4, 1))),))
    (tmp_path / "own.json").write_text(Decoder("own", 256, 16, (block,)).to_json())
    code, _, err = cli("show", tmp_path / "own.json", "--text", TEXT)
    assert code == 1 and "blocks[0].sublayers[0].attention was not met in the pass" in err
