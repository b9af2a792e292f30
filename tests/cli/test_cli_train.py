"""`formers train` and `eval`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import QUICK, TINY, Cli

from formers.cli.training import DEEPER, HELP
from formers.spec import from_json
from formers.train import AdamW, Constant, Run, TrainSpec


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["kind"] == "train"]


def test_a_run_has_all_that_is_needed_later(trained: Path) -> None:
    there = {path.name for path in trained.iterdir()}
    assert {
        "spec.json",
        "train.json",
        "tokenizer_config.json",
        "metrics.jsonl",
        "loss.png",
        "checkpoints",
        "data",
    } <= there
    assert losses(trained)[-1] < losses(trained)[0]


def test_training_begins_with_what_it_is_about(cli: Cli, text: Path, tmp_path: Path) -> None:
    code, out, _ = cli("train", *TINY, "--data", text, "--out", tmp_path / "run", "--steps", 2, *QUICK)
    assert code == 0
    assert out.startswith("gpt2: 11,216 parameters; 6,407 tokens to learn from, 339 held out\n")
    assert f"the run is in {tmp_path / 'run'}, its loss in {tmp_path / 'run' / 'loss.png'}" in out


def test_resuming_goes_on_exactly(cli: Cli, text: Path, tmp_path: Path, trained: Path) -> None:
    words = ["train", *TINY, "--data", text, "--out", tmp_path / "run", "--steps", 12, *QUICK, "--checkpoint-every", 8]
    assert cli(*words).code == 0
    shutil.rmtree(Run(tmp_path / "run").checkpoint(12))
    code, out, _ = cli("train", "--resume", "--out", tmp_path / "run")
    assert code == 0
    assert f"going on with the data that the run began with, in {tmp_path / 'run' / 'data'}" in out
    assert losses(tmp_path / "run") == losses(trained)
    assert cli(*words, "--resume").code == 0


def test_every_field_of_the_training_spec_has_an_option() -> None:
    assert set(HELP) == set(TrainSpec.__dataclass_fields__)  # type: ignore[attr-defined]
    assert not set(DEEPER) & set(HELP)


def test_options_become_the_training_spec(cli: Cli, text: Path, tmp_path: Path) -> None:
    schedule = ["--schedule", "Constant()", "--warm-up", 3, "--clip", "none", "--label-smoothing", 0.1, "--seed", 7]
    optimizer = ["--optimizer", "AdamW(weight_decay=0.2)", "--learning-rate", 2e-3, "--batch", 4, "--accumulation", 2]
    words = ["--data", text, "--out", tmp_path / "run", "--steps", 1, *schedule, *optimizer]
    assert cli("train", *TINY, *words).code == 0
    assert from_json((tmp_path / "run" / "train.json").read_text()) == TrainSpec(
        steps=1,
        batch=4,
        length=32,  # all that the model reads
        accumulation=2,
        optimizer=AdamW(learning_rate=2e-3, weight_decay=0.2),
        schedule=Constant(warm_up=3),
        clip=None,
        label_smoothing=0.1,
        seed=7,
    )


def test_other_tokenizers(cli: Cli, text: Path, tmp_path: Path) -> None:
    words = ["--data", text, "--tokenizer", "bpe:300", "--out", tmp_path / "run", "--steps", 1, *QUICK]
    assert cli("train", *TINY, *words).code == 0
    assert from_json((tmp_path / "run" / "spec.json").read_text()).vocab == 300


def test_a_spec_file_is_trained(cli: Cli, text: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(cli("show", *TINY, "vocab=257", "--json").out)
    words = ["--data", text, "--out", tmp_path / "run", "--steps", 1, *QUICK]
    assert cli("train", tmp_path / "mine.json", *words).code == 0


def test_an_encoder_learns_to_fill_in(cli: Cli, text: Path, tmp_path: Path) -> None:
    words = ["bert", "dim=16", "depth=1", "heads=2", "length=32", "--data", text, "--out", tmp_path / "run"]
    assert cli("train", *words, "--steps", 2, *QUICK).code == 0
    assert "accuracy" in cli("eval", tmp_path / "run").out
    assert "accuracy" in cli("eval", tmp_path / "run", "--data", text).out
    assert "cannot write on from a prompt" in cli("generate", tmp_path / "run", "--prompt", "a").err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "no model is named"),
        ([*TINY], "there is nothing to learn from; name text with --data PATH"),
        ([*TINY, "--data", "missing.txt"], "how long to train is not said; give --steps 2000"),
        ([*TINY, "--data", "missing.txt", "--steps", "2"], "missing.txt does not exist"),
        ([*TINY, "--data", "{text}", "depth=4", "--steps", "2"], "depth=4 was taken for data"),
        ([*TINY, "--data", "{text}", "--steps", "0"], "steps=0 must be at least 1"),
        ([*TINY, "--data", "{text}", "--steps", "2", "--length", "64"], "give --length 32"),
        ([*TINY, "--data", "{text}", "--steps", "2", "--batch", "3", "--accumulation", "2"], "accumulation=1"),
        ([*TINY, "--data", "{text}", "--steps", "2", "--tokenizer", "missing"], "there is no tokenizer 'missing'"),
        ([*TINY, "vocab=100", "--data", "{text}", "--steps", "2"], "the tokenizer has 257 ids and the model knows 100"),
        (["gpt2", "heads=5", "--data", "{text}", "--steps", "2"], "does not split into 5 heads"),
        (["transformer", "--data", "{text}", "--steps", "2"], "give --data SOURCE TARGET"),
        ([*TINY, "--set", "head=none", "--data", "{text}", "--steps", "2"], "has no head"),
        (["--resume"], "holds no run to resume"),
    ],
)
def test_what_cannot_be_trained_is_told(words: list[str], told: str, cli: Cli, text: Path, tmp_path: Path) -> None:
    code, _, err = cli("train", *(word.format(text=text) for word in words), "--out", tmp_path / "run")
    assert code == 1
    assert told in err
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_mistyped_option_is_misuse(cli: Cli, text: Path, tmp_path: Path) -> None:
    code, _, err = cli("train", *TINY, "--data", text, "--out", tmp_path / "run", "--steps", "many")
    assert code == 2
    assert "argument --steps: 'many' is not int" in err


@pytest.mark.parametrize(
    ("content", "told"), [(b"", "holds no text"), (b"  \n", "holds no text"), (b"\x00\x01", "is not text")]
)
def test_data_that_is_no_text_is_told(content: bytes, told: str, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(content)
    code, _, err = cli("train", *TINY, "--data", tmp_path / "data", "--out", tmp_path / "run", "--steps", 2)
    assert code == 1
    assert told in err


def test_a_run_is_never_overwritten(cli: Cli, text: Path, trained: Path) -> None:
    before = losses(trained)
    code, _, err = cli("train", *TINY, "--data", text, "--out", trained, "--steps", 2)
    assert code == 1
    assert "holds a run already; add --resume to go on with it, or name another --out" in err
    assert losses(trained) == before


def test_a_run_cannot_go_on_as_another(cli: Cli, trained: Path, text: Path) -> None:
    assert "steps: 12 was saved, 20 is given" in cli("train", "--resume", "--out", trained, "--steps", 20).err
    words = [*TINY[:1], "dim=32", *TINY[2:], "--data", text, "--out", trained, "--resume"]
    assert "dim: 16 was saved, 32 is given" in cli("train", *words).err


def test_a_place_that_cannot_be_written_is_told(cli: Cli, text: Path) -> None:
    code, _, err = cli("train", *TINY, "--data", text, "--out", text / "run", "--steps", 2)
    assert code == 1
    assert f"cannot write into {text / 'run'}" in err


def test_a_run_that_was_interrupted_says_so_to_the_shell(
    cli: Cli, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "formers.train.interrupt.Interrupt.__enter__", lambda self: setattr(self, "asked", True) or self
    )
    code, _, err = cli("train", *TINY, "--data", text, "--out", tmp_path / "run", "--steps", 12, *QUICK)
    assert code == 130
    assert "resume the run in" in err


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("room", [2_000, 20_000])
def test_a_full_disk_is_told(room: int, text: Path, tmp_path: Path) -> None:
    """A limit on the size of files refuses like a full disk: first the tokens, then the checkpoint."""
    words = ["train", *TINY, "--data", text, "--out", tmp_path / "run", "--steps", "2", *QUICK]
    limited = [sys.executable, Path(__file__).with_name("full_disk.py"), str(room), *words]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=300, env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == 1
    assert done.stderr.count("File too large") == 1 and "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.part")) and not list(tmp_path.rglob("*.tmp"))


def test_evaluation_tells_the_figures(cli: Cli, trained: Path, text: Path) -> None:
    code, out, _ = cli("eval", trained)
    assert code == 0
    told = dict(line.rsplit(None, 1) for line in out.splitlines())
    assert {name.strip() for name in told} == {"bits per byte", "perplexity", "nats per token", "tokens", "bytes"}
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert f"{rows[-1]['bits_per_byte']:.4f}" in out  # what the run itself found in the end
    whole = cli("eval", trained, "--data", text).out
    assert f"{len(text.read_bytes()):,}" in whole


def test_translations_are_evaluated(cli: Cli, translating: Path) -> None:
    assert "BLEU" in cli("eval", translating).out
    sides = [translating.parent / "source", translating.parent / "target"]
    assert "perplexity" in cli("eval", translating, "--data", *sides).out
    assert cli("train", "--resume", "--out", translating).code == 0


@pytest.mark.parametrize("damage", ["cut", "gone", "pickle", "spec", "tokenizer", "data"])
def test_a_damaged_run_is_told(damage: str, cli: Cli, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    weights = Run(run).checkpoint(12) / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
        told = "is damaged"
    elif damage == "gone":
        shutil.rmtree(run / "checkpoints")
        told = "holds no checkpoint"
    elif damage == "pickle":
        weights.rename(weights.with_name("model.pt"))
        told = "cannot be read" if weights.exists() else "checkpoint"
    elif damage == "spec":
        (run / "spec.json").write_text((run / "spec.json").read_text().replace('"dim": 16', '"dim": 32'))
        told = "is of another model"
    elif damage == "tokenizer":
        (run / "tokenizer_config.json").unlink()
        told = "holds no tokenizer"
    else:
        shutil.rmtree(run / "data")
        told = "give --data"
    code, out, err = cli("eval", run)
    assert (code, out) == (1, "")
    assert told in err
