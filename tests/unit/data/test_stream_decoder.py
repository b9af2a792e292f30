"""Text from ids that arrive one at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formers.data.tokenizer import BPETokenizer, ByteTokenizer, CharTokenizer, StreamDecoder

BYTE_LEVEL = BPETokenizer.train(["añb€c 日本語 🙂 the the the"] * 9, 300)


@pytest.fixture(scope="session")
def llama(published):
    return BPETokenizer(published["llama"]())


def pieces_of(tokenizer, ids):
    decoder = StreamDecoder(tokenizer)
    return [*(decoder.push(token) for token in ids), decoder.flush()]


@given(st.lists(st.integers(0, 257)))
def test_bytes_join_to_what_decode_gives_even_where_they_are_no_text(ids):
    assert "".join(pieces_of(ByteTokenizer(), ids)) == ByteTokenizer().decode(ids)


@given(st.lists(st.integers(0, BYTE_LEVEL.vocab - 1)))
def test_byte_level_bpe_joins_to_what_decode_gives_even_where_it_is_no_text(ids):
    assert "".join(pieces_of(BYTE_LEVEL, ids)) == BYTE_LEVEL.decode(ids)


@given(text=st.text(alphabet="ab €é🙂日\n"))
def test_byte_fallback_joins_to_the_text(llama, text):
    ids = llama.encode(text)
    assert "".join(pieces_of(llama, ids)) == llama.decode(ids)


@pytest.mark.parametrize("kind", ["bert", "marian"])
@given(data=st.data())
def test_words_join_to_what_decode_gives(published, kind, data):
    tokenizer = BPETokenizer(published[kind]())
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab - 1)))
    assert "".join(pieces_of(tokenizer, ids)) == tokenizer.decode(ids)


def test_no_piece_shows_a_broken_character(llama):
    text = "a €é b🙂a"
    for tokenizer in (ByteTokenizer(), BYTE_LEVEL, llama):
        pieces = pieces_of(tokenizer, tokenizer.encode(text))
        assert "".join(pieces) == text
        assert not any("\ufffd" in piece for piece in pieces)
        assert sum(map(bool, pieces)) > 3, "and it arrives in several pieces"


def test_a_special_id_between_words_leaves_the_space(llama):
    ids = [*llama.encode("a"), llama.end, *llama.encode("b")]
    assert pieces_of(llama, ids) == ["a", "", " b", ""]


def test_an_unfinished_character_shows_at_the_end(llama):
    assert pieces_of(ByteTokenizer(), "€".encode()[:2]) == ["", "", "\ufffd"]
    unfinished = llama.encode("é")[:-1]
    assert "".join(pieces_of(llama, unfinished)) == llama.decode(unfinished)


def test_bytes_that_never_become_a_character_are_not_held_for_ever(llama):
    invalid = [3 + 0xFF] * 6  # <0xFF>
    assert any(pieces_of(llama, invalid)[:-1])


def test_characters_arrive_at_once():
    assert pieces_of(CharTokenizer("añ€"), [0, 1, 2]) == ["a", "ñ", "€", ""]


def test_after_a_flush_a_new_text_may_begin(llama):
    decoder = StreamDecoder(llama)
    for _ in range(2):
        assert [decoder.push(token) for token in llama.encode("a b")] == ["a", " b"]
        assert decoder.flush() == ""
