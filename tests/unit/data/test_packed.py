"""Packed documents: every window once an epoch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from formers.data.batches import Packed, document_marks
from formers.errors import DataError


def rows_of(packed, first, count):
    """`count` rows from row `first` on, whatever the batches are."""
    steps = range(first // packed.batch, (first + count - 1) // packed.batch + 1)
    rows = torch.cat([packed.at(step) for step in steps])
    return rows[first - steps[0] * packed.batch :][:count]


@given(st.integers(2, 300), st.integers(1, 12), st.integers(1, 7), st.integers(0, 3), st.integers(0, 5))
def test_an_epoch_has_every_window_once(count, length, batch, seed, epoch):
    length = min(length, count - 1)
    packed = Packed(np.arange(count), length, batch, seed)
    assert packed.windows == (count - 1) // length
    rows = rows_of(packed, epoch * packed.windows, packed.windows)
    targets = sorted(rows[:, 1:].flatten().tolist())
    assert len(targets) == packed.windows * length
    assert targets == list(range(targets[0], targets[0] + len(targets))), "one stretch, each token once"
    assert torch.equal(rows.diff(dim=1), torch.ones(packed.windows, length, dtype=torch.int64))


@given(st.integers(0, 10**7), st.integers(0, 3))
def test_a_batch_is_a_function_of_seed_and_step(step, seed):
    stream = np.arange(777)
    packed = Packed(stream, 10, 4, seed)
    batch = packed.at(step)
    assert (batch.shape, batch.dtype) == ((4, 11), torch.int64)
    packed.at(step + 1000)
    assert torch.equal(packed.at(step), batch)
    assert torch.equal(Packed(stream, 10, 4, seed).at(step), batch)


def test_epochs_and_seeds_differ_in_order():
    orders = [
        rows_of(Packed(np.arange(1001), 10, 5, seed), epoch * 100, 100)[:, 0] for seed in (0, 1) for epoch in (0, 1)
    ]
    assert len({tuple(order.tolist()) for order in orders}) == 4
    assert not torch.equal(orders[0], orders[0].sort().values)


def test_what_is_left_over_differs_between_epochs():
    packed = Packed(np.arange(1009), 10, 5)
    firsts = {int(rows_of(packed, epoch * 100, 100).min()) for epoch in range(60)}
    assert firsts == set(range(9))


def test_data_shorter_than_a_window_says_what_to_change():
    with pytest.raises(DataError, match="use length=7 or less"):
        Packed(np.arange(8), length=8, batch=2)


def test_marks_tell_documents_apart_and_positions_start_again():
    end = 9
    tokens = torch.tensor([[1, 2, end, 3, end, end, 4], [end, 1, 2, 3, 4, 5, end]])
    marks = document_marks(tokens, end)
    assert marks["document"].tolist() == [[0, 0, 0, 1, 1, 2, 3], [0, 1, 1, 1, 1, 1, 1]]
    assert marks["position"].tolist() == [[0, 1, 2, 0, 1, 0, 0], [0, 0, 1, 2, 3, 4, 5]]


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=4))
def test_marks_equal_a_plain_count(rows):
    width = max(map(len, rows))
    tokens = torch.tensor([row + [1] * (width - len(row)) for row in rows])
    marks = document_marks(tokens, end=0)
    for row, documents, positions in zip(tokens, marks["document"], marks["position"], strict=True):
        document = position = 0
        for token, *found in torch.stack([row, documents, positions], dim=1).tolist():
            assert found == [document, position]
            document, position = (document + 1, 0) if token == 0 else (document, position + 1)
