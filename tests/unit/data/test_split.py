"""Holding documents, or the end of a text, out of training."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formers.data.source import documents, is_held_out, split, split_text
from formers.errors import DataError

MANY = [f"document {number}" for number in range(2000)]


@given(st.lists(st.text(), min_size=2).filter(lambda texts: len(set(texts)) > 1), st.integers(0, 9))
def test_every_document_is_on_one_side_and_copies_stay_together(texts, seed):
    train, held = (list(part) for part in split(texts, 0.3, seed))
    assert sorted(train + held) == sorted(texts)
    assert train and held
    assert not set(train) & set(held)


def test_about_the_share_is_held_out_and_the_seed_chooses():
    held = [list(split(MANY, 0.1, seed)[1]) for seed in (0, 1)]
    assert all(150 < len(part) < 250 for part in held)
    assert held[0] != held[1]
    assert held[0] == list(split(MANY, 0.1, 0)[1])


def test_a_document_keeps_its_side_when_others_come_or_go():
    held = set(split(MANY, 0.1)[1])
    assert set(split(MANY[500:1500], 0.1)[1]) == held & set(MANY[500:1500])
    assert [text for text in MANY if is_held_out(text, 0.1)] == list(split(MANY, 0.1)[1])


def test_the_parts_can_be_walked_through_again(tmp_path):
    for number in range(20):
        (tmp_path / f"{number}.txt").write_text(f"text {number}")
    for source in (documents(tmp_path), iter(MANY)):
        train, held = split(source, 0.2)
        assert list(train) == list(train)
        assert list(held) == list(held)


def test_one_document_cannot_be_split_by_document():
    with pytest.raises(DataError, match="split_text"):
        split(["same", "same"])


def test_a_text_is_cut_as_nanogpt_cuts_it():
    text = "".join(chr(33 + number % 90) for number in range(1_003))
    train, held = split_text(text, 0.1)
    assert train + held == text
    assert len(train) == int(1_003 * 0.9)


def test_a_text_too_short_to_cut_is_refused():
    with pytest.raises(DataError, match="too short"):
        split_text("a", 0.1)


@pytest.mark.parametrize("share", [0, 1, -0.1, 5])
def test_a_share_is_between_nothing_and_all(share):
    for refuse in (lambda: split(MANY, share), lambda: split_text("abc", share), lambda: is_held_out("a", share)):
        with pytest.raises(DataError, match="no share of the data"):
            refuse()
