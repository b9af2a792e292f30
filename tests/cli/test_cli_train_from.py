"""`formers train --from`: a run that begins with the weights of another, under other patterns and on longer rows."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from command import QUICK, Cli

from formers import make
from formers.cli import main
from formers.data.tokenizer import ByteTokenizer
from formers.spec import from_json
from formers.train import Run, load_model

SHAPE = ["dim=16", "depth=2", "heads=4", "hidden=16", "dropout=0"]
STAGE = ["longformer_lm", *SHAPE]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    run = tmp_path_factory.mktemp("stages") / "first"
    words = ["--data", str(text), "--out", str(run), "--steps", "6", *QUICK, "--seed", "3"]
    assert main(["train", *STAGE, "window=(2, 4)", *words]) == 0
    return run


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["kind"] == "train"]


def test_a_stage_begins_with_the_weights_of_the_one_before(cli: Cli, first: Path, tmp_path: Path) -> None:
    words = ["--from", first, "--length", 32, "--learning-rate", 0.005, "--steps", 3, "--out", tmp_path / "second"]
    code, _, err = cli("train", *STAGE, "window=(4, 8)", *words)
    assert code == 0, err
    second = Run(tmp_path / "second")
    assert [block.sublayers[0].pattern.right.size for block in second.spec.blocks[:1]] == [4]
    begun, ended = (load_model(second.checkpoint(step)).state_dict() for step in (0, 3))
    for name, tensor in load_model(first).state_dict().items():
        torch.testing.assert_close(begun[name], tensor, rtol=0, atol=0)
    assert any(not torch.equal(ended[name], tensor) for name, tensor in begun.items())
    assert losses(second.root)[0] < losses(first)[0]
    before, after = (from_json((run / "train.json").read_text()) for run in (first, second.root))
    assert (after.length, after.optimizer.learning_rate, after.steps) == (32, 0.005, 3)
    assert (after.batch, after.seed, after.schedule) == (before.batch, 3, before.schedule)


def test_the_run_itself_is_the_model_where_none_is_named(cli: Cli, first: Path, text: Path, tmp_path: Path) -> None:
    words = ["--from", first, "--data", text, "--steps", 2, "--out", tmp_path / "run"]
    assert cli("train", *words, "--set", "blocks[0].sublayers[0].pattern=Causal()").code == 0
    spec = Run(tmp_path / "run").spec
    assert repr(spec.blocks[0].sublayers[0].pattern) == "Causal()"
    assert spec.blocks[1] == Run(first).spec.blocks[1]


def test_a_run_that_was_stopped_before_it_saved_goes_on_from_where_it_began(
    cli: Cli, first: Path, tmp_path: Path
) -> None:
    assert cli("train", "--from", first, "--steps", 4, "--out", tmp_path / "run").code == 0
    run = Run(tmp_path / "run")
    wanted = load_model(run.checkpoint(4)).state_dict()
    shutil.rmtree(run.checkpoint(4))
    assert cli("train", "--resume", "--out", run.root).code == 0
    for name, tensor in load_model(run.checkpoint(4)).state_dict().items():
        torch.testing.assert_close(tensor, wanted[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            [*STAGE, "dim=32", "window=(2, 4)"],
            "embedding.tokens.weight has the shape (257, 16) and should have (257, 32)",
        ),
        ([*STAGE, "depth=3", "window=(2, 8)"], "stack.blocks.2.sublayers.0.projection.q_proj.weight is missing"),
        (["--resume"], "a run that goes on has weights of its own; leave out --from or --resume"),
        (["--tokenizer", "bytes"], "know its own tokens; leave out --tokenizer"),
        (["--set", "wings=2"], "no field 'wings'"),
    ],
)
def test_what_does_not_fit(words: list[str], told: str, cli: Cli, first: Path, tmp_path: Path) -> None:
    code, _, err = cli("train", *words, "--from", first, "--steps", 2, "--out", tmp_path / "run")
    assert code != 0 and told in err, err


def test_what_is_not_said_or_not_there(cli: Cli, first: Path, text: Path, tmp_path: Path) -> None:
    bare, tokenizer = tmp_path / "bare", ByteTokenizer(("end",))
    model = make("gpt2", vocab=tokenizer.vocab, dim=16, depth=1, heads=2, length=32).build()
    Run(bare).hold(model, model.spec, tokenizer)
    for words, told in {
        ("--from", bare, "--steps", 2): "bare has no data of its own; name text with --data PATH",
        ("--from", bare, "--data", text, "--steps", 2, "--length", 64): "rows of 64 tokens do not fit a model of 32",
        ("--from", bare, "--data", text): "how long to train is not said",
        ("--from", first): "how long to train is not said",
        ("--from", tmp_path / "nowhere", "--steps", 2): "there is no file",
    }.items():
        code, _, err = cli("train", *words, "--out", tmp_path / "run")
        assert (code, told in err) == (1, True), err
    code, _, err = cli("train", "--from", first, "--steps", 2, "--out", first)
    assert (code, "holds a run already" in err) == (1, True), err
