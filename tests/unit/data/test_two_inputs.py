"""Sentences, and rows of a long and a global input."""

import pytest
import torch

from formers.data.batches import of_sentences, sentence_segments, side_by_side
from formers.data.source import Sentences, sentences
from formers.errors import DataError

SUMMARY, END = 99, 9


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("One. Two?  Three!\nFour", ["One.", "Two?", "Three!", "Four"]),
        ('He said "no." Then (really!) he left.', ['He said "no."', "Then (really!) he left."]),
        ("A line\nthat goes on\n\nand a new paragraph", ["A line\nthat goes on", "and a new paragraph"]),
        ("3.14 is no end", ["3.14 is no end"]),
        (" \n ", []),
    ],
)
def test_a_text_in_sentences(text: str, found: list[str]) -> None:
    assert sentences(text) == found


def test_texts_are_walked_through_anew() -> None:
    walk = Sentences(["One. Two.", "Three."])
    assert list(walk) == list(walk) == ["One.", "Two.", "Three."]


def test_lists_of_sentences_become_rows() -> None:
    both = of_sentences([[[1, 2, 3], [4]], [[5, 6]]], SUMMARY)
    assert both.ahead == 2
    assert both.tokens.tolist() == [[99, 99, 1, 2, 3, 4], [99, 99, 5, 6, 0, 0]]
    assert both.mask.tolist() == [[True] * 6, [True, False, True, True, False, False]]
    assert both.marks["global"].tolist() == [[1, 1, 0, 0, 0, 0]] * 2
    assert both.marks["segment"].tolist() == [[0, 1, 0, 0, 0, 1], [0, 1, 0, 0, -1, -1]]


def test_sentences_are_closed_by_an_end_or_cut() -> None:
    tokens = torch.tensor([[1, 1, END, 1, END, 1, 1, 1, 1, 1], [END, 1, 1, 1, 1, 1, 1, 1, 1, 1]])
    assert sentence_segments(tokens, END, 4).tolist() == [
        [0, 0, 0, 1, 1, 2, 2, 2, 2, 3],
        [0, 1, 1, 1, 1, 2, 2, 2, 2, 3],
    ]


@pytest.mark.parametrize("rows", [[[]], [[[1], []]]])
def test_empty_sentences_are_told(rows: list) -> None:
    with pytest.raises(DataError, match="row 0 has no sentence, or an empty one"):
        of_sentences(rows, SUMMARY)


def test_shapes_that_differ_are_told() -> None:
    with pytest.raises(DataError, match=r"one shape, got \(1, 3\), \(1, 2\), \(1, 3\)"):
        side_by_side(torch.zeros(1, 3), torch.zeros(1, 2), SUMMARY)
