"""Aligned files of sentences."""

import gzip

import pytest

from formers.data.source import pairs
from formers.errors import DataError


def test_lines_meet_their_translations_plain_or_packed(tmp_path):
    (tmp_path / "a.en").write_bytes(b"one\ntwo\x0b\xe2\x80\xa8still two\n\nfour")
    (tmp_path / "a.de.gz").write_bytes(gzip.compress(b"eins\r\nzwei\r\n\r\nvier\r\n"))
    expected = [("one", "eins"), ("two\x0b\u2028still two", "zwei"), ("", ""), ("four", "vier")]
    assert list(pairs(tmp_path / "a.en", tmp_path / "a.de.gz")) == expected
    assert list(pairs(str(tmp_path / "a.en"), str(tmp_path / "a.de.gz"))) == expected


def test_unequal_numbers_of_lines_are_told_before_the_first_pair(tmp_path):
    (tmp_path / "a").write_text("1\n2\n3\n")
    (tmp_path / "b").write_text("1\n2\n")
    with pytest.raises(DataError, match=r"a has 3 lines but .*b has 2"):
        next(pairs(tmp_path / "a", tmp_path / "b"))


def test_empty_missing_and_wrong_files_are_one_clear_error(tmp_path):
    (tmp_path / "empty").write_text("")
    (tmp_path / "latin").write_bytes(b"ok\ncaf\xe9\n")
    (tmp_path / "text").write_text("1\n2\n")
    (tmp_path / "broken.gz").write_bytes(b"\x1f\x8b\x08\x00")
    for source, target, message in [
        ("empty", "empty", "are empty"),
        ("text", "none", "cannot read"),
        ("text", "latin", "latin, line 2 is not UTF-8"),
        ("broken.gz", "text", "does not unpack"),
    ]:
        with pytest.raises(DataError, match=message):
            list(pairs(tmp_path / source, tmp_path / target))
