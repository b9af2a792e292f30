"""ETC from the command line: trained on sentences, gone on with, evaluated, and made of a BERT."""

import json
import shutil
from pathlib import Path

import pytest
from command import Cli

from formers.train import Run

ETC = ["etc", "dim=16", "depth=1", "heads=2", "radius=4", "reach=3"]
QUICK = ["--steps", 4, "--batch", 4, "--length", 48, "--warm-up", 2, "--learning-rate", 0.01, "--checkpoint-every", 2]


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sentences") / "farm.txt"
    file.write_text("".join(f"{name} has {number} hens. " for number in range(60) for name in ("Ann", "Bob")))
    return file


def trained_losses(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["losses"] | {"nats": row["loss"]} for row in rows if row["kind"] == "train"]


def test_both_losses_are_told_and_a_run_goes_on_exactly(cli: Cli, sentences: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    code, out, err = cli("train", *ETC, "--data", sentences, "--out", run, *QUICK)
    assert code == 0 and "tokens to learn from" in out
    assert "nats per hidden sentence" in err and "of hidden sentences found" in err
    before = trained_losses(run)
    assert len(before) == 4 and all(losses["cpc"] > 0 for losses in before)
    shutil.rmtree(Run(run).checkpoint(4))
    assert cli("train", "--resume", "--out", run).code == 0
    assert trained_losses(run) == before
    for data in ([], ["--data", sentences]):
        code, out, _ = cli("eval", run, *data)
        assert code == 0 and "share of hidden sentences that are found" in out


def test_a_bert_is_made_an_etc_and_trained_on(cli: Cli, sentences: Path, tmp_path: Path) -> None:
    bert = ["bert", "dim=16", "depth=1", "heads=2", "length=48"]
    assert cli("train", *bert, "--data", sentences, "--out", tmp_path / "bert", *QUICK).code == 0
    code, out, _ = cli("convert", tmp_path / "bert", "--to", "etc", "--length", 96, "--out", tmp_path / "etc")
    assert code == 0 and "96 positions" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["heads=2", "radius=0"], "a radius of 0 leaves a long token no neighbour to see"),
        (["heads=2", "hard=('l2l',)"], "is not a tuple of one of 'g2l', 'l2g'"),
        (["heads=2", "--loss-chunk=8"], "use loss_chunk=none"),
        (["heads=2", "--tokenizer={plain}"], "the tokenizer has no id for mask, start"),
    ],
)
def test_what_cannot_be_trained_is_told(words: list[str], told: str, cli: Cli, sentences: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "tokenizer_config.json").write_text(json.dumps({"kind": "bytes", "special": ["end"]}))
    given = [word.format(plain=plain) for word in words]
    code, _, err = cli(
        "train", "etc", "dim=16", "depth=1", *given, "--data", sentences, "--out", tmp_path / "run", *QUICK
    )
    assert code == 1
    assert told in err
