"""`formers convert --to longformer` and its kin: a run or a published folder becomes a run for long texts."""

import shutil
from pathlib import Path

import pytest
import torch
from command import QUICK, Cli

from formers import make
from formers.cli import main
from formers.data.tokenizer import ByteTokenizer
from formers.train import Run, load_model, load_run_tokenizer

LONG = ["--to", "longformer", "--length", "96"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that holds a small BERT of bytes, as an import leaves it."""
    tokenizer = ByteTokenizer(("end", "pad", "mask"))
    model = make("bert", vocab=tokenizer.vocab, dim=16, depth=2, heads=2, length=32, dropout=0.0).build()
    run = tmp_path_factory.mktemp("bert") / "run"
    Run(run).hold(model, model.spec, tokenizer)
    return run


@pytest.mark.parametrize("to", ["longformer", "big_bird"])
def test_a_run_becomes_longer_and_is_trained(to: str, cli: Cli, bert: Path, text: Path, tmp_path: Path) -> None:
    said = cli("convert", bert, "--to", to, "--length", 96, "--out", tmp_path / "long")
    assert said.code == 0, said.err
    assert said.out.startswith(f"{tmp_path / 'long'}: {to}_bert, 96 positions, ")
    assert f"train it: formers train --from {tmp_path / 'long'}" in said.out
    assert load_run_tokenizer(tmp_path / "long").vocab == 259
    words = ["--data", text, "--out", tmp_path / "run", "--steps", 2, *QUICK, "--length", 80]
    assert cli("train", "--from", tmp_path / "long", *words).code == 0
    assert load_model(tmp_path / "run").spec == load_model(tmp_path / "long").spec
    assert cli("eval", tmp_path / "run").code == 0


def test_short_texts_are_read_as_before(cli: Cli, bert: Path, tmp_path: Path) -> None:
    assert cli("convert", bert, *LONG, "--out", tmp_path / "long").code == 0
    old, new, tokens = load_model(bert), load_model(tmp_path / "long"), torch.arange(32)[None]
    with torch.no_grad():
        torch.testing.assert_close(new(tokens).logits, old(tokens).logits)
        marked = new(tokens, marks={"global": (tokens == 3).long()}).logits
    torch.testing.assert_close(marked, old(tokens).logits)  # its own projections begin as those of all others


def test_a_published_folder(cli: Cli, bert: Path, tmp_path: Path) -> None:
    assert cli("export", bert, "--out", tmp_path / "theirs").code == 0
    said = cli("convert", tmp_path / "theirs", *LONG, "--out", tmp_path / "long")
    assert said.code == 0, said.err
    assert load_run_tokenizer(tmp_path / "long").mask == 258
    assert cli("export", tmp_path / "long", "--out", tmp_path / "published").code == 0
    again = cli("import", tmp_path / "published", "--out", tmp_path / "again")
    assert "a longformer model" in again.out, again.err
    with torch.no_grad():
        tokens = torch.arange(40)[None]
        found, wanted = (load_model(tmp_path / name)(tokens).logits for name in ("again", "long"))
    torch.testing.assert_close(found, wanted)


def test_a_decoder_gets_a_causal_window(cli: Cli, trained: Path, tmp_path: Path) -> None:
    said = cli("convert", trained, *LONG, "--out", tmp_path / "long", "--set", "blocks[*].sublayers[0].dropout=0.1")
    assert said.code == 0, said.err
    spec = load_model(tmp_path / "long").spec
    assert repr(spec.blocks[0].sublayers[0].pattern) == "Causal() & Window(size=512)"
    assert spec.blocks[1].sublayers[0].dropout == 0.1
    assert cli("generate", tmp_path / "long", "--prompt", "7 ", "--max-new", "3").code == 0
    again = ["--from", tmp_path / "long", "--out", tmp_path / "run", "--steps", 2, *QUICK]
    code, _, err = cli("train", *again)
    assert (code, "has no data of its own; name text with --data" in err) == (1, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--to", "longformer"], "how long texts are to be is not said; give --length 4096"),
        (["--to", "longformer", "--length", "16"], "bert has 32 positions already, so 16 would cut it"),
        ([*LONG, "--steps", "5"], "--steps is for --to sparse: --to longformer trains nothing"),
        ([*LONG, "--block", "5"], "--block is for --to sparse"),
        ([*LONG, "--set", "blocks[*].sublayers[0].pattern=Window(0)"], "a window of 0 sees nothing"),
        ([*LONG, "--set", "blocks[*].sublayers[1].hidden=8"], "longformer does not fit the model: "),
        ([*LONG, "--set", "blocks[0].wings=2"], "no field 'wings'"),
        (["--to", "sparse", "--steps", "3", "--set", "dim=3"], "--set is for long texts"),
    ],
)
def test_what_is_asked_wrongly(words: list[str], told: str, cli: Cli, bert: Path, tmp_path: Path) -> None:
    code, _, err = cli("convert", bert, *words, "--out", tmp_path / "long")
    assert (code, told in err) == (1, True), err
    assert not (tmp_path / "long").exists()


def test_what_is_no_model(cli: Cli, bert: Path, translating: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.json").write_text('{"model_type": "gpt2", "n_embd": 8')
    broken = tmp_path / "broken"
    shutil.copytree(bert, broken)
    weights = Run(broken).checkpoint(0) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    for folder, told in {
        tmp_path / "nowhere": "nowhere is no folder",
        tmp_path / "empty": "is neither a run, which has a spec.json, nor a model in Hugging Face's format",
        tmp_path / "config": "config.json",
        broken: "is damaged",
        translating: "transformer is EncoderDecoder(...): only a Decoder or an Encoder is made longer",
    }.items():
        code, _, err = cli("convert", folder, *LONG, "--out", tmp_path / "long")
        assert (code, told in err) == (1, True), err
    assert not (tmp_path / "long").exists()


def test_a_run_is_not_written_over(cli: Cli, bert: Path) -> None:
    code, _, err = cli("convert", bert, *LONG, "--out", bert)
    assert (code, "is not empty; name a new folder" in err) == (1, True)


def test_a_model_that_is_long_already(cli: Cli, bert: Path, tmp_path: Path) -> None:
    assert main(["convert", str(bert), *LONG, "--out", str(tmp_path / "long")]) == 0
    code, _, err = cli("convert", tmp_path / "long", *LONG, "--out", tmp_path / "again")
    assert (code, "has nothing that becomes longformer" in err) == (1, True), err
