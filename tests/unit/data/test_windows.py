"""Random windows for training, ordered windows for evaluation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from formers.data.batches import Ordered, RandomWindows
from formers.data.tokens import write_tokens
from formers.errors import DataError


@given(st.integers(1, 20), st.integers(1, 5), st.integers(0, 9), st.integers(0, 10**9), st.integers(1, 60))
def test_random_windows_are_stretches_of_the_stream_and_pure(length, batch, seed, step, extra):
    stream = np.arange(length + extra, dtype=np.uint16)
    windows = RandomWindows(stream, length, batch, seed)
    first = windows.at(step)
    assert (first.shape, first.dtype) == ((batch, length + 1), torch.int64)
    assert torch.equal(first.diff(dim=1), torch.ones(batch, length, dtype=torch.int64))
    windows.at(step + 1)
    assert torch.equal(windows.at(step), first)
    assert torch.equal(RandomWindows(stream, length, batch, seed).at(step), first)


def test_random_windows_reach_every_place_equally():
    windows = RandomWindows(np.arange(14), length=4, batch=50)
    starts = torch.cat([windows.at(step)[:, 0] for step in range(200)])
    counts = starts.bincount(minlength=10)
    assert len(counts) == 10
    assert (counts - 1000).abs().max() < 150


def test_seeds_and_steps_differ():
    stream = np.arange(10_000)
    batches = [RandomWindows(stream, 8, 4, seed).at(step) for seed in (0, 1) for step in (0, 1)]
    assert len({tuple(batch.flatten().tolist()) for batch in batches}) == 4


def test_a_token_file_is_read_as_the_array_it_holds(tmp_path):
    file = write_tokens(tmp_path / "a.bin", [range(500)], 70_000)
    assert torch.equal(RandomWindows(file, 8, 4).at(3), RandomWindows(np.arange(500), 8, 4).at(3))
    assert torch.equal(next(iter(Ordered(file, 8, 4))).tokens, next(iter(Ordered(np.arange(500), 8, 4))).tokens)


def test_a_batch_may_be_written_to():
    stream = np.arange(50)
    RandomWindows(stream, 8, 4).at(0).zero_()
    assert stream.tolist() == list(range(50))


@pytest.mark.parametrize(
    "count, message",
    [
        (8, r"has 8 tokens, but one window of length=8 needs 9 .*; use length=7 or less, or more text"),
        (1, r"has 1 tokens.*; use more text"),
    ],
)
def test_data_shorter_than_a_window_says_what_to_change(count, message):
    with pytest.raises(DataError, match=message):
        RandomWindows(np.arange(count), length=8, batch=2)
    RandomWindows(np.arange(9), length=8, batch=2).at(0)


@pytest.mark.parametrize("length, batch", [(0, 1), (1, 0), (-1, 1)])
def test_impossible_shapes_are_refused(length, batch):
    for make in (RandomWindows, Ordered):
        with pytest.raises(DataError, match="at least 1"):
            make(np.arange(50), length, batch)


@given(st.integers(2, 90), st.integers(1, 12), st.integers(1, 5), st.booleans())
def test_every_token_is_a_target_once_and_in_order(count, length, batch, started):
    stream = np.arange(1, count + 1)
    ordered = Ordered(stream, length, batch, start=0 if started else None)
    inputs, targets = [], []
    for tokens, mask in ordered:
        assert tokens.shape == mask.shape
        assert tokens.shape[1] == length + 1
        assert mask[:, :2].all(), "each row has something to predict"
        counted = mask[:, 1:]
        assert mask[:, :-1][counted].all()
        inputs += tokens[:, :-1][counted].tolist()
        targets += tokens[:, 1:][counted].tolist()
    assert targets == list(range(1 if started else 2, count + 1))
    assert inputs == [target - 1 for target in targets]
    assert len(targets) == ordered.targets
    assert len(list(ordered)) == len(ordered)


def test_filling_is_on_the_right_of_the_last_row_alone():
    batches = list(Ordered(np.arange(1, 11), length=4, batch=2, start=0))
    assert [batch.tokens.shape[0] for batch in batches] == [2, 1]
    assert batches[0].tokens.tolist() == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]]
    assert batches[0].mask.all()
    assert batches[1].mask.tolist() == [[True, True, True, False, False]]
    assert batches[1].tokens[0, :3].tolist() == [8, 9, 10]


def test_nothing_to_predict_is_refused():
    with pytest.raises(DataError, match="nothing to predict"):
        Ordered(np.arange(1), 4, 2)
    with pytest.raises(DataError, match="nothing to predict"):
        Ordered(np.arange(0), 4, 2, start=0)
    assert Ordered(np.arange(1), 4, 2, start=5).at(0).tokens[0, :2].tolist() == [5, 0]
