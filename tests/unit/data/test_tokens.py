"""Memory-mapped token files."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formers.data import tokens as module
from formers.data.tokenizer import BPETokenizer, ByteTokenizer, CharTokenizer
from formers.data.tokens import TokenFile, token_writer, write_text, write_tokens
from formers.errors import DataError


@pytest.mark.parametrize("vocab, dtype", [(257, np.uint16), (65536, np.uint16), (65537, np.uint32)])
def test_ids_come_back_in_the_narrowest_type(vocab, dtype, tmp_path):
    file = write_tokens(tmp_path / "deep" / "a.bin", [[1, 2, 3], [vocab - 1], []], vocab)
    assert file.tokens.tolist() == [1, 2, 3, vocab - 1]
    assert (file.tokens.dtype, len(file), file.vocab, file.documents) == (dtype, 4, vocab, 3)
    assert file.text_bytes is None
    assert np.asarray(file).tolist() == file.tokens.tolist()
    assert np.array(file, dtype=np.int64).dtype == np.int64


@settings(deadline=None)
@given(texts=st.lists(st.text(), min_size=1))
def test_texts_are_written_end_to_end_with_their_ends(texts, tmp_path_factory):
    tokenizer = ByteTokenizer()
    file = write_text(tmp_path_factory.mktemp("tokens") / "a.bin", iter(texts), tokenizer)
    expected = [token for text in texts for token in [*tokenizer.encode(text), tokenizer.end]]
    assert file.tokens.tolist() == expected
    assert file.documents == len(texts)
    assert (file.text_bytes or 0) == len("".join(texts).encode())


def test_a_tokenizer_without_an_end_writes_none(tmp_path):
    assert write_text(tmp_path / "a.bin", ["ab", "ba"], CharTokenizer("ab")).tokens.tolist() == [0, 1, 1, 0]


def lines(count):
    return "".join(
        f"    line {number} is  here\n\n\n" if number % 7 else "x = 5.\nreturn x\n" for number in range(count)
    )


@pytest.mark.parametrize("bpe", [False, True])
def test_long_texts_are_encoded_in_pieces_to_the_same_ids(bpe, tmp_path, monkeypatch):
    text = lines(900)
    tokenizer = BPETokenizer.train([text], 300) if bpe else ByteTokenizer()
    monkeypatch.setattr(module, "_PIECE", 500)
    monkeypatch.setattr(module, "_PORTION", 3000)
    sizes = []
    encode_batch = tokenizer.encode_batch
    monkeypatch.setattr(tokenizer, "encode_batch", lambda texts: sizes.append(len(texts)) or encode_batch(texts))
    file = write_text(tmp_path / "a.bin", [text, "short", text], tokenizer)
    whole = [*tokenizer.encode(text), tokenizer.end]
    assert file.tokens.tolist() == [*whole, *tokenizer.encode("short"), tokenizer.end, *whole]
    assert (file.documents, file.text_bytes) == (3, 2 * len(text) + 5)
    assert len(sizes) > 5 and max(sizes) > 3


def test_a_tokenizer_that_cannot_be_cut_encodes_a_long_text_whole(tmp_path, monkeypatch, published):
    tokenizer = BPETokenizer(published["llama"]())
    monkeypatch.setattr(module, "_PIECE", 50)
    text = "a b\nb a\n" * 40
    file = write_text(tmp_path / "a.bin", [text], tokenizer)
    assert file.tokens.tolist() == [*tokenizer.encode(text), tokenizer.end]


def test_pieces_of_a_document_count_as_one(tmp_path):
    with token_writer(tmp_path / "a.bin", vocab=9) as writer:
        writer.add([1, 2], text_bytes=5, closes=False)
        writer.add(np.array([3], dtype=np.uint16), text_bytes=2)
    file = TokenFile.open(tmp_path / "a.bin")
    assert (file.documents, file.text_bytes, len(file)) == (1, 7, 3)


def test_another_tokenizer_is_refused(tmp_path):
    file = write_text(tmp_path / "a.bin", ["ab"], ByteTokenizer())
    file.require(ByteTokenizer())
    with pytest.raises(DataError, match=r"another tokenizer than this one \(characters, 2 ids\)"):
        file.require(CharTokenizer("ab"))
    write_tokens(tmp_path / "b.bin", [[1]], 9).require(ByteTokenizer())


@pytest.mark.parametrize("strange", [257, -1, 70000])
def test_an_id_outside_the_vocabulary_leaves_the_old_file(strange, tmp_path):
    write_tokens(tmp_path / "a.bin", [[1, 2]], 257)
    with pytest.raises(DataError, match=f"id {strange} does not fit a vocabulary of 257"):
        write_tokens(tmp_path / "a.bin", [[3] * 10, [0, strange]], 257)
    assert TokenFile.open(tmp_path / "a.bin").tokens.tolist() == [1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "a.bin.json"]


def test_nothing_to_write_is_one_clear_error(tmp_path):
    with pytest.raises(DataError, match="gave no tokens"):
        write_tokens(tmp_path / "a.bin", [[], []], 9)
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_is_stopped_leaves_the_old_file(tmp_path):
    write_tokens(tmp_path / "a.bin", [[1, 2]], 9)

    def stopped():
        yield [3] * 100
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tokens(tmp_path / "a.bin", stopped(), 9)
    assert TokenFile.open(tmp_path / "a.bin").tokens.tolist() == [1, 2]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_is_one_clear_error_and_leaves_the_old_file(tmp_path, monkeypatch):
    write_tokens(tmp_path / "a.bin", [[1, 2]], 9)

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match=r"cannot write .*a\.bin: No space left on device"):
        write_tokens(tmp_path / "a.bin", [[3]], 9)
    assert TokenFile.open(tmp_path / "a.bin").tokens.tolist() == [1, 2]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write"):
        write_tokens(tmp_path / "file" / "a.bin", [[1]], 9)


def test_stopped_between_the_tokens_and_their_header_the_file_counts_as_missing(tmp_path, monkeypatch):
    write_tokens(tmp_path / "a.bin", [[1, 2]], 9)
    replace = Path.replace

    def stopped(part, path):
        if path.suffix == ".json":
            raise KeyboardInterrupt
        return replace(part, path)

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_tokens(tmp_path / "a.bin", [[3, 4]], 9)
    with pytest.raises(DataError, match="cannot read"):
        TokenFile.open(tmp_path / "a.bin")


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "a.bin"
    write_tokens(path, [[1, 2, 3]], 9)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="it has 5 bytes where 6 were written"):
        TokenFile.open(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no token file"):
        TokenFile.open(tmp_path / "a.bin")


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"dtype": "float64"},
        {"dtype": None},
        {"count": -1},
        {"count": "3"},
        {"vocab": None},
        {"text_bytes": "x"},
        {"fingerprint": 5},
    ],
)
def test_a_header_that_is_none_is_refused(change, tmp_path):
    write_tokens(tmp_path / "a.bin", [[1, 2, 3]], 9)
    header = tmp_path / "a.bin.json"
    header.write_text(json.dumps({**json.loads(header.read_text()), **change}))
    with pytest.raises(DataError, match="no header of a token file"):
        TokenFile.open(tmp_path / "a.bin")
    header.write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        TokenFile.open(tmp_path / "a.bin")
