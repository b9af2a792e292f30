"""Rows go on from step to step, and evaluation reads every token once."""

import itertools

import numpy as np
import pytest
import torch

from formers.data.batches import OrderedStreams, Streams
from formers.errors import DataError


@pytest.mark.parametrize(("count", "length", "batch"), [(101, 5, 4), (64, 7, 3), (50, 49, 1), (1000, 16, 8)])
def test_rows_go_on_where_they_stopped(count: int, length: int, batch: int) -> None:
    streams = Streams(np.arange(count), length, batch)
    steps = streams.steps_per_pass
    rows = [streams.at(step) for step in range(2 * steps)]
    for step in range(2 * steps):
        assert rows[step].shape == (batch, length + 1)
        assert torch.equal(rows[step][:, 1:], rows[step][:, :-1] + 1)
        assert streams.continues(step) == (step not in (0, steps))
        if streams.continues(step):
            assert torch.equal(rows[step][:, 0], rows[step - 1][:, -1])
    read = torch.cat(rows[:steps], 1)[:, 1:]
    targets = {int(token) for token in read.flatten()}
    assert len(targets) == steps * batch * length > (count - 1) - batch * length


def test_a_batch_is_a_function_of_the_step() -> None:
    one, other = (Streams(np.arange(117), 5, 4, seed=3) for _ in range(2))
    forward = [one.at(step) for step in range(12)]
    backward = [other.at(step) for step in reversed(range(12))]
    assert all(map(torch.equal, forward, reversed(backward)))


def test_what_is_left_over_lies_elsewhere_in_every_pass() -> None:
    streams = Streams(np.arange(4 * 5 * 6 + 15), 5, 4)
    first = {int(streams.at(turn * streams.steps_per_pass)[0, 0]) for turn in range(20)}
    assert len(first) > 5 and max(first) <= 14


@pytest.mark.parametrize(("count", "length", "batch", "mend"), [(40, 10, 4, "batch=3"), (6, 10, 2, "length=5")])
def test_too_little_text_is_an_error_with_a_mend(count: int, length: int, batch: int, mend: str) -> None:
    with pytest.raises(DataError, match=mend):
        Streams(np.arange(count), length, batch)


@pytest.mark.parametrize("start", [None, 7])
@pytest.mark.parametrize(("count", "length", "batch"), [(20, 5, 1), (21, 5, 2), (23, 4, 3), (10, 3, 6), (3, 9, 5)])
def test_every_token_is_a_target_once(count: int, length: int, batch: int, start: int | None) -> None:
    tokens = np.arange(100, 100 + count)
    streams = OrderedStreams(tokens, length, batch, start=start)
    windows = list(streams)
    assert len(windows) == len(streams)
    targets = torch.cat([rows[:, 1:][real[:, 1:]] for rows, real in windows])
    assert sorted(targets.tolist()) == tokens[start is None :].tolist()
    before = torch.cat([rows[:, :-1][real[:, 1:]] for rows, real in windows])
    assert all(a == b - 1 or (a == start and b == 100) for a, b in zip(before.tolist(), targets.tolist(), strict=True))
    for (rows, _), (later, real) in itertools.pairwise(windows):
        assert torch.equal(rows[:, -1][real[:, 0]], later[:, 0][real[:, 0]])
