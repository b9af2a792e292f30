"""Byte-level BPE trained here, and the tokenizer.json files of published models."""

import json

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models

from formers.data.tokenizer import BPETokenizer
from formers.errors import DataError

TEXTS = ["the cat sat on the mat. ", "the dog ate the cat's hat!\n", "naïve café €5 — 日本語 🙂\n"] * 20
TRAINED = BPETokenizer.train(TEXTS, 300, special=("end", "pad"))


@given(st.text())
def test_every_text_comes_back(text):
    assert TRAINED.decode(TRAINED.encode(text)) == text


def test_a_text_cannot_forge_a_special_id():
    assert TRAINED.end not in TRAINED.encode("one<|end|>two")
    assert TRAINED.decode(TRAINED.encode("one<|end|>two")) == "one<|end|>two"


def test_the_vocabulary_is_as_large_as_asked_and_merges_shorten_the_text():
    assert TRAINED.vocab == 300
    assert len(TRAINED.encode("the cat sat")) < len("the cat sat") / 2
    assert TRAINED.special_ids == (0, 1)
    assert (TRAINED.end, TRAINED.pad, TRAINED.start, TRAINED.mask) == (0, 1, None, None)


def test_little_text_gives_a_smaller_vocabulary():
    assert BPETokenizer.train(["ab"], 5000).vocab < 300


def test_a_vocabulary_without_room_for_bytes_is_refused():
    with pytest.raises(DataError, match="at least vocab=258"):
        BPETokenizer.train(TEXTS, 200, special=("end", "pad"))


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_training_on_nothing_is_refused(texts):
    with pytest.raises(DataError, match="no text"):
        BPETokenizer.train(texts, 300)


@pytest.mark.parametrize(
    "kind, roles, text",
    [
        ("gpt2", {"end": 256}, "the cats, naïve"),
        ("bert", {"end": 3, "start": 2, "pad": 0, "mask": 4}, "the cats sat the cats sat."),
        ("llama", {"end": 2, "start": 1}, "a b €a b"),
        ("marian", {"end": 1, "pad": 0}, "the cats the cats"),
    ],
)
def test_published_kinds_load_with_their_roles(kind, roles, text, tmp_path, published):
    published[kind]().save(str(tmp_path / "tokenizer.json"))
    tokenizer = BPETokenizer.load(tmp_path)
    found = {role: getattr(tokenizer, role) for role in ("end", "start", "pad", "mask")}
    assert {role: token for role, token in found.items() if token is not None} == roles
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode_batch([text, "the"])[0] == tokenizer.encode(text)
    assert not set(tokenizer.encode(text)) & set(roles.values()), "no special id of the template, no padding"
    framed = [tokenizer.special_ids[0], *tokenizer.encode(text), *tokenizer.special_ids]
    assert tokenizer.decode(framed) == text
    assert (tokenizer.token_bytes(5) is not None) == (kind == "gpt2")


def test_saving_a_published_tokenizer_keeps_what_stood_beside_it(tmp_path, published):
    published["bert"]().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 512, "eos_token": "the"}))
    tokenizer = BPETokenizer.load(tmp_path)
    tokenizer.save(tmp_path / "again")
    again = BPETokenizer.load(tmp_path / "again")
    assert again.end == tokenizer.end == 5
    assert json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())["model_max_length"] == 512


@pytest.mark.parametrize("entry", ["the", {"content": "the", "lstrip": False}])
@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_the_files_beside_decide_over_the_usual_names(entry, file, tmp_path, published):
    published["bert"]().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / file).write_text(json.dumps({"pad_token": entry, "mask_token": None}))
    tokenizer = BPETokenizer.load(tmp_path / "tokenizer.json")
    assert (tokenizer.pad, tokenizer.mask) == (5, 4)


def test_an_imported_tokenizer_reads_special_tokens_in_a_text_as_its_authors_do(tmp_path, published):
    published["bert"]().save(str(tmp_path / "tokenizer.json"))
    assert BPETokenizer.load(tmp_path).encode("the [MASK] sat") == [5, 4, 8]


def test_added_tokens_that_are_no_special_ones_are_spelled_as_themselves(tmp_path, published):
    tokenizer = published["gpt2"]()
    tokenizer.add_tokens(["    "])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = BPETokenizer.load(tmp_path)
    ids = loaded.encode("a    b")
    assert 257 in ids
    assert loaded.token_bytes(257) == b"    "
    assert loaded.decode(ids) == "a    b"


def test_a_missing_or_damaged_file_is_one_clear_error(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        BPETokenizer.load(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "BPE"')
    with pytest.raises(DataError, match=r"tokenizer\.json is no tokenizer"):
        BPETokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"tokenizer\.json is no tokenizer"):
        BPETokenizer.load(tmp_path)


def test_an_empty_vocabulary_is_refused(tmp_path):
    tokenizers.Tokenizer(models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match="empty vocabulary"):
        BPETokenizer.load(tmp_path)
