"""`formers datastore`, and stores beside eval, generate and train."""

import json
import re
import shutil
from pathlib import Path

import pytest
from command import QUICK, Cli

from formers.cli import main
from formers.datastore import Datastore
from formers.train import load_model

OTHER = "the rain in Spain stays mainly in the plain; " * 30


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("other") / "rain.txt"
    file.write_text(OTHER)
    return file


@pytest.fixture(scope="module")
def store(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of what the run was trained on."""
    folder = tmp_path_factory.mktemp("stores") / "bottles"
    assert main(["datastore", "build", str(trained), "--out", str(folder)]) == 0
    return folder


def figures(out: str) -> dict[str, float]:
    found = (re.match(r"(.*?)  +([\d.,]+)$", line) for line in out.splitlines())
    return {match[1]: float(match[2].replace(",", "")) for match in found if match}


def test_a_store_is_built_of_what_a_run_was_trained_on(cli: Cli, trained: Path, tmp_path: Path) -> None:
    said = cli("datastore", "build", trained, "--out", tmp_path / "s")
    trained_on = json.loads((trained / "data" / "train.tokens.json").read_text())["count"]
    assert said.code == 0
    assert f"{trained_on:,} entries; keys of 16 numbers in fp32" in said.out
    assert "input of the last feed-forward; searched exactly" in said.out
    assert cli("datastore", "build", trained, "--out", tmp_path / "s").code == 0


def test_a_store_of_the_tests_domain_helps(cli: Cli, trained: Path, other: Path, tmp_path: Path) -> None:
    """The first half of a text is stored, and the model is evaluated on the second."""
    halves = [tmp_path / "first.txt", tmp_path / "second.txt"]
    for half, text in zip(halves, (OTHER[:700], OTHER[700:]), strict=True):
        half.write_text(text)
    made = cli("datastore", "build", trained, "--data", halves[0], "--keys", "fp16", "--out", tmp_path / "s")
    assert "in fp16" in made.out
    words = ["eval", trained, "--data", halves[1]]
    found = figures(cli(*words, "--datastore", tmp_path / "s", "--neighbours", 4, "--mix", "tune").out)
    assert found["perplexity"] < 0.8 * found["perplexity without the store"]
    assert found["share of the neighbours"] > 0.5
    assert found["tokens that are in the store themselves"] == 0
    fixed = figures(cli(*words, "--datastore", tmp_path / "s", "--neighbours", 4, "--mix", 0.1).out)
    assert fixed["share of the neighbours"] == 0.1
    assert found["perplexity"] < fixed["perplexity"] < fixed["perplexity without the store"]


def test_a_stored_text_does_not_find_itself(cli: Cli, trained: Path, text: Path, store: Path, tmp_path: Path) -> None:
    cli("datastore", "build", trained, "--data", text, "--out", tmp_path / "s")
    found = figures(cli("eval", trained, "--data", text, "--datastore", tmp_path / "s", "--neighbours", 1).out)
    assert found["tokens that are in the store themselves"] == Datastore(tmp_path / "s").count


def test_text_is_added_and_the_index_kept_up(cli: Cli, trained: Path, other: Path, store: Path, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    shutil.copytree(store, tmp_path / "s")
    before = Datastore(tmp_path / "s").count
    assert "searched by its index" in cli("datastore", "build", trained, "--out", tmp_path / "s", "--index", "pq").out
    said = cli("datastore", "add", tmp_path / "s", "--data", other)
    assert said.code == 0 and f"{before + len(OTHER) + 1:,} entries" in said.out
    found = cli("datastore", "search", tmp_path / "s", "--prompt", "the rain in Sp", "--neighbours", 3)
    assert "the rain in Sp" in found.out and "next: 'a' 100%" in found.out
    assert cli("datastore", "add", tmp_path / "s", "--data", other).err.count("already") == 1


def test_a_search_shows_contexts_and_what_followed(cli: Cli, store: Path) -> None:
    said = cli("datastore", "search", store, "--prompt", "7 green bot", "--neighbours", 5)
    lines = said.out.splitlines()
    assert said.code == 0 and lines[0].split() == ["distance", "weight", "context", "next"]
    assert len(lines) == 7
    assert "green bot" in lines[1] and lines[1].rstrip().endswith("'t'")
    assert "next: 't'" in lines[-1]


def test_neighbours_have_a_say_in_what_is_written(cli: Cli, trained: Path, other: Path, tmp_path: Path) -> None:
    cli("datastore", "build", trained, "--data", other, "--out", tmp_path / "s")
    words = ["generate", trained, "--prompt", "the rain in Sp", "--max-new", 12, "--temperature", 0]
    plain = cli(*words)
    said = cli(*words, "--datastore", tmp_path / "s", "--neighbours", 1, "--mix", 0.99)
    assert said.out.startswith("ain") and said.out != plain.out
    assert "NearestNeighbours" in said.err
    refused = cli(*words, "--datastore", tmp_path / "s", "--engine", "native")
    assert refused.code == 1 and "NearestNeighbours" in refused.err
    several = cli(*words, "--prompt", "plain; th", "--datastore", tmp_path / "s", "--neighbours", 1, "--mix", 0.99)
    assert several.out.startswith("--- the rain in Sp\nain") and "--- plain; th\ne " in several.out


def test_spalm_is_trained_evaluated_and_writes_by_a_store(
    cli: Cli, trained: Path, text: Path, store: Path, tmp_path: Path
) -> None:
    run = tmp_path / "spalm"
    model = ["spalm", "dim=16", "depth=2", "heads=2", "hidden=24", "dropout=0"]
    words = ["train", *model, "--data", text, "--out", run, "--steps", 6, *QUICK]
    refused = cli(*words)
    assert refused.code == 1 and "with --datastore DIR" in refused.err and not run.exists()
    said = cli(*words, "--datastore", store, "--neighbours", 3)
    assert said.code == 0, said.err
    assert load_model(run).stack.blocks[-1].gate.weight.any()
    assert json.loads((run / "data" / "neighbours.json").read_text())["k"] == 3
    own = figures(cli("eval", run).out)
    assert 0 < own["share of the model beside retrieved tokens"] < 1
    beside = figures(cli("eval", run, "--datastore", store, "--neighbours", 3).out)
    assert beside == own
    written = cli("generate", run, "--prompt", "7 green", "--max-new", 5, "--temperature", 0, "--datastore", store)
    assert written.code == 0 and len(written.out) >= 5 and "RetrievedTokens" in written.err
    resumed = cli("train", "--resume", "--out", run)
    assert resumed.code == 0


MISTAKES = {
    "another model": (["eval", "{other_run}", "--datastore", "{store}"], "other weights"),
    "no store": (["eval", "{run}", "--datastore", "{nowhere}"], "holds no datastore; build one with"),
    "mix of nothing": (["eval", "{run}", "--mix", "0.3"], "--mix: there is no store"),
    "neighbours of nothing": (["generate", "{run}", "--neighbours", "3"], "--neighbours: there is no store"),
    "a mix of everything": (["eval", "{run}", "--datastore", "{store}", "--mix", "1"], "would have probability 0"),
    "no neighbours": (["eval", "{run}", "--datastore", "{store}", "--neighbours", "0"], "ask for at least 1"),
    "a plain model in training": (
        [
            "train",
            "gpt2",
            "dim=16",
            "heads=2",
            "--data",
            "{text}",
            "--out",
            "{nowhere}",
            "--steps",
            "3",
            "--datastore",
            "{store}",
        ],
        "takes in no retrieved tokens",
    ),
    "an encoder-decoder to evaluate": (["eval", "{pairs}", "--datastore", "{store}"], "no causal language model"),
    "an encoder-decoder that writes": (
        ["generate", "{pairs}", "--prompt", "ab", "--datastore", "{store}"],
        "no causal language model",
    ),
    "a run that goes on": (
        ["train", "--resume", "--out", "{run}", "--datastore", "{store}"],
        "--datastore: a run that goes on",
    ),
    "a picture": (
        ["generate", "{run}", "--picture", "x.png", "--datastore", "{store}"],
        "--datastore: a store is of text",
    ),
    "no place": (["datastore", "build", "{run}"], "give --out DIR"),
    "an option of another action": (
        ["datastore", "add", "{store}", "--prompt", "x"],
        "--prompt is for formers datastore",
    ),
    "nothing to add": (["datastore", "add", "{store}"], "nothing to add"),
    "nothing to look up": (["datastore", "search", "{store}"], "no context to look up"),
    "an encoder-decoder": (["datastore", "build", "{pairs}", "--out", "{nowhere}"], "no causal language model"),
    "too long": (["datastore", "build", "{run}", "--out", "{nowhere}", "--length", "40"], "at most 32"),
    "another store there": (["datastore", "build", "{run}", "--out", "{store}", "--keys", "bf16"], "another datastore"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told(
    cli: Cli, name: str, trained: Path, translating: Path, text: Path, store: Path, tmp_path: Path
) -> None:
    words, told = MISTAKES[name]
    if name == "another model":
        shutil.copytree(trained, tmp_path / "other_run")
        (tmp_path / "other_run" / "train.json").unlink()
        train = ["train", "--from", trained, "--data", text, "--out", tmp_path / "second", "--steps", "1", *QUICK]
        assert cli(*train).code == 0
    places = {"run": trained, "other_run": tmp_path / "second", "store": store, "nowhere": tmp_path / "nowhere"}
    places |= {"text": text, "pairs": translating}
    said = cli(*(word.format(**places) for word in words))
    assert said.code == 1 and told in said.err, said.err
    assert not (tmp_path / "nowhere").exists()
