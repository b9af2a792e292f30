"""Byte and character tokenizers, and finding a folder's tokenizer again."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from formers.data.tokenizer import BPETokenizer, ByteTokenizer, CharTokenizer, load_tokenizer
from formers.errors import DataError

TEXT = "def naïve(x):\n\treturn x  # €5, 日本語, 🙂\n"


@given(st.text())
def test_bytes_give_every_text_back(text):
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode(text) == list(text.encode())


@given(st.binary())
def test_bytes_give_every_bytes_back(content):
    tokenizer = ByteTokenizer()
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(content)) == content


def test_bytes_that_are_no_text_decode_with_a_replacement():
    assert ByteTokenizer().decode([ord("a"), 0xFF, ord("b")]) == "a\ufffdb"


def test_a_lone_surrogate_becomes_a_replacement():
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"


def test_ids_that_are_no_text_add_nothing():
    assert ByteTokenizer().decode([ord("a"), 256, 999, -1, ord("b")]) == "ab"
    assert CharTokenizer("ab", special=("end",)).decode([0, 2, 999, -1, 1]) == "ab"


@pytest.mark.parametrize("ids", [torch.tensor([104, 105]), np.array([104, 105], dtype=np.uint16), iter([104, 105])])
def test_ids_may_be_tensors_arrays_or_iterators(ids):
    assert ByteTokenizer().decode(ids) == "hi"


def test_special_ids_follow_the_letters_in_the_order_given():
    tokenizer = ByteTokenizer(special=("end", "pad", "mask"))
    assert (tokenizer.vocab, tokenizer.end, tokenizer.pad, tokenizer.mask, tokenizer.start) == (
        259,
        256,
        257,
        258,
        None,
    )
    assert tokenizer.special_ids == (256, 257, 258)
    assert CharTokenizer("ba").vocab == 2
    assert CharTokenizer("ba", special=("end",)).end == 2


@pytest.mark.parametrize("special", [("stop",), ("end", "end")])
def test_unknown_or_repeated_roles_are_refused(special):
    with pytest.raises(DataError, match="end, start, pad, mask"):
        ByteTokenizer(special=special)


@given(st.text(min_size=1), st.data())
def test_characters_give_every_text_of_their_alphabet_back(text, data):
    tokenizer = CharTokenizer.train([text])
    other = data.draw(st.text(alphabet=sorted(set(text))))
    assert tokenizer.decode(tokenizer.encode(other)) == other
    assert tokenizer.vocab == len(set(text))


def test_characters_are_numbered_in_sorted_order():
    assert CharTokenizer.train(["ca", "b"]).encode("abc") == [0, 1, 2]


def test_a_strange_character_is_named():
    with pytest.raises(DataError, match=r"'z' \(number 2 of the text\)"):
        CharTokenizer("abc").encode("abz")
    with pytest.raises(DataError, match="'A'"):
        CharTokenizer("abc").encode("A")


def test_no_characters_are_refused():
    with pytest.raises(DataError, match="empty"):
        CharTokenizer.train([])


def every_kind():
    return [
        ByteTokenizer(special=("end", "mask")),
        CharTokenizer.train([TEXT], special=("pad",)),
        BPETokenizer.train([TEXT] * 5, 300, special=("end", "start", "pad")),
    ]


@pytest.mark.parametrize("tokenizer", every_kind(), ids=lambda tokenizer: tokenizer.name)
def test_what_was_saved_is_found_again(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "run")
    again = load_tokenizer(tmp_path / "run")
    assert type(again) is type(tokenizer)
    assert again.encode(TEXT) == tokenizer.encode(TEXT)
    for attribute in ("name", "vocab", "end", "start", "pad", "mask", "special_ids", "fingerprint"):
        assert getattr(again, attribute) == getattr(tokenizer, attribute)


@pytest.mark.parametrize("tokenizer", every_kind(), ids=lambda tokenizer: tokenizer.name)
def test_the_bytes_of_the_tokens_make_up_the_text(tokenizer):
    ids = tokenizer.encode(TEXT)
    assert b"".join(tokenizer.token_bytes(token) for token in ids).decode() == TEXT
    assert all(tokenizer.token_bytes(token) == b"" for token in (*tokenizer.special_ids, tokenizer.vocab))
    assert tokenizer.encode_batch([TEXT, "", TEXT]) == [ids, [], ids]


def test_the_last_saved_tokenizer_of_a_folder_counts(tmp_path):
    for tokenizer in [*every_kind(), *reversed(every_kind())]:
        tokenizer.save(tmp_path)
        assert load_tokenizer(tmp_path).fingerprint == tokenizer.fingerprint


def test_different_tokenizers_have_different_fingerprints():
    prints = {tokenizer.fingerprint for tokenizer in [*every_kind(), ByteTokenizer(), CharTokenizer("ab")]}
    assert len(prints) == 5


def test_a_folder_without_a_tokenizer_is_one_clear_error(tmp_path):
    with pytest.raises(DataError, match=r"holds no tokenizer.*tokenizer\.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        json.dumps({"kind": "bytes"}),
        json.dumps({"kind": "characters", "special": []}),
        json.dumps({"kind": "characters", "special": [], "characters": [1]}),
    ],
)
def test_a_damaged_tokenizer_is_one_clear_error(config, tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(config)
    with pytest.raises(DataError, match="damaged"):
        load_tokenizer(tmp_path)
