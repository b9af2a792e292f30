"""Tokenizers beside imported and exported models."""

import json
from pathlib import Path

import pytest
import tokenizers
from published import VOCAB, configure, gpt2, marian
from published import transformers as tf
from tokenizers import models, pre_tokenizers

from formers import CheckpointError, hub, make
from formers.data.tokenizer import BPETokenizer, ByteTokenizer, CharTokenizer, Tokenizer, load_tokenizer
from formers.train.run import load_run_tokenizer

TEXTS = ["Grüße, Welt!\n\tname = <0x41>", "", "a  b", "日本語 🙂 <|end|>", "\r\n\x00x"]


def put_tokenizer(folder: Path, size: int = VOCAB) -> None:
    """A tokenizer of words w0, w1, ..., with <pad> as the last and </s> as the first."""
    words = ["</s>", *(f"w{i}" for i in range(size - 2)), "<pad>"]
    raw = tokenizers.Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="w0"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "pad_token": "<pad>"}))


def test_it_travels_with_the_model(tmp_path: Path) -> None:
    _, folder = gpt2(tmp_path / "theirs")
    put_tokenizer(folder)
    assert hub.import_folder(folder, tmp_path / "run").tokenizer
    tokenizer = load_run_tokenizer(tmp_path / "run")
    assert (tokenizer.encode("w3 w1"), tokenizer.end, tokenizer.pad) == ([4, 2], 0, 52)
    hub.export(tmp_path / "run", tmp_path / "out")
    theirs = tf.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (theirs("w3 w1").input_ids, theirs.eos_token_id, theirs.pad_token_id) == ([4, 2], 0, 52)


def test_a_translator_starts_where_its_config_says(tmp_path: Path) -> None:
    _, folder = marian(tmp_path / "theirs")
    put_tokenizer(folder)
    assert load_tokenizer(folder).start is None
    hub.import_folder(folder, tmp_path / "run")
    tokenizer = load_run_tokenizer(tmp_path / "run")
    assert (tokenizer.start, tokenizer.end) == (52, 0)
    configure(folder, decoder_start_token_id=99)
    with pytest.raises(CheckpointError, match=r"decoder_start_token_id is 99, and the tokenizer of .* has no such id"):
        hub.import_folder(folder, tmp_path / "other")


def test_a_folder_without_one(tmp_path: Path) -> None:
    _, folder = gpt2(tmp_path / "theirs")
    imported = hub.import_folder(folder, tmp_path / "run")
    assert not imported.tokenizer
    assert str(imported) == "a gpt2 model: 40 tensors in float32; the folder holds no tokenizer"


@pytest.mark.parametrize("name", ["vocab.json", "source.spm", "tokenizer.model", "vocab.txt"])
def test_one_in_another_format(tmp_path: Path, name: str) -> None:
    _, folder = gpt2(tmp_path / "theirs")
    (folder / name).write_text("{}")
    with pytest.raises(CheckpointError, match=f"holds a tokenizer as {name} and not as tokenizer.json; write that"):
        hub.import_folder(folder, tmp_path / "run")


def test_one_of_another_model(tmp_path: Path) -> None:
    _, folder = gpt2(tmp_path / "theirs")
    put_tokenizer(folder, size=VOCAB + 1)
    with pytest.raises(CheckpointError, match="has 54 ids and the model only 53"):
        hub.import_folder(folder, tmp_path / "run")


@pytest.mark.parametrize(
    "tokenizer",
    [
        ByteTokenizer(("end", "pad", "mask")),
        CharTokenizer.train(TEXTS, ("end", "start")),
        CharTokenizer.train(TEXTS),
        BPETokenizer.train(TEXTS, 280, ("end", "start", "pad")),
    ],
    ids=["bytes", "characters", "characters alone", "bpe"],
)
def test_ours_gives_transformers_the_same_ids(tmp_path: Path, tokenizer: Tokenizer) -> None:
    spec = make("gpt2", vocab=300, dim=16, depth=1, heads=2, hidden=8, length=8)
    hub.export(spec.build(), tmp_path / "out", tokenizer)
    theirs, again = tf.AutoTokenizer.from_pretrained(tmp_path / "out"), load_tokenizer(tmp_path / "out")
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert theirs(text, add_special_tokens=False, split_special_tokens=True).input_ids == ids
        assert theirs.decode(ids) == again.decode(ids) == text
        assert again.encode(text) == ids
    for role, name in {"end": "eos", "start": "bos", "pad": "pad", "mask": "mask"}.items():
        assert getattr(theirs, f"{name}_token_id") == getattr(again, role) == getattr(tokenizer, role)
    config = tf.AutoConfig.from_pretrained(tmp_path / "out")
    assert (config.eos_token_id, config.bos_token_id) == (tokenizer.end, tokenizer.start)
