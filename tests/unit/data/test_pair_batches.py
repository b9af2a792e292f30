"""Batches of sentence pairs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from formers.data.batches import PairBatches
from formers.errors import DataError

START, END, PAD = 1, 2, 0
IDS = {"start": START, "end": END, "pad": PAD}


def corpus(count, seed=0, longest=30):
    """Pairs whose ids name them: number n has source ids 10 + n and target ids 10 + n."""
    lengths = np.random.default_rng(seed).integers(1, longest, size=(count, 2))
    return [([10 + number] * source, [10 + number] * (target - 1)) for number, (source, target) in enumerate(lengths)]


def check_batch(batch, pairs):
    """Every row is one of the pairs, whole, framed and padded as promised; gives the numbers of the pairs."""
    numbers = []
    for source, source_mask, inputs, targets, mask in zip(*batch, strict=True):
        number = int(source[0]) - 10
        expected_source, expected_target = pairs[number]
        assert source[source_mask].tolist() == expected_source
        assert inputs[mask].tolist() == [START, *expected_target]
        assert targets[mask].tolist() == [*expected_target, END]
        for ids, real in ((source, source_mask), (inputs, mask), (targets, mask)):
            assert (ids[~real] == PAD).all()
            assert real.tolist() == sorted(real.tolist(), reverse=True), "padding is on the right"
        numbers.append(number)
    return numbers


@settings(deadline=None)
@given(st.integers(1, 80), st.integers(32, 300), st.integers(0, 3), st.integers(0, 3))
def test_an_epoch_has_every_pair_once_in_batches_that_fit(count, tokens_per_batch, seed, epoch):
    pairs = corpus(count, seed)
    batches = PairBatches(pairs, tokens_per_batch, **IDS, seed=seed)
    numbers = []
    for step in range(epoch * len(batches), (epoch + 1) * len(batches)):
        batch = batches.at(step)
        assert batch.source.numel() <= tokens_per_batch
        assert batch.inputs.numel() <= tokens_per_batch
        numbers += check_batch(batch, pairs)
    assert sorted(numbers) == list(range(count))


def test_a_batch_is_a_function_of_seed_and_step():
    pairs = corpus(200)
    batches = PairBatches(pairs, 300, **IDS, seed=4)
    late = batches.at(1000)
    for step in (0, 1000, 7, 1000):
        fresh = PairBatches(iter(pairs), 300, **IDS, seed=4).at(step)
        for mine, other in zip(batches.at(step), fresh, strict=True):
            assert torch.equal(mine, other)
    assert torch.equal(batches.at(1000).source, late.source)


def test_epochs_shuffle_pairs_and_batches():
    pairs = corpus(400)
    batches = PairBatches(pairs, 300, **IDS)
    epochs = [
        [frozenset(check_batch(batches.at(step), pairs)) for step in range(first, first + len(batches))]
        for first in (0, len(batches))
    ]
    assert epochs[0] != epochs[1]
    assert len(set(epochs[0]) & set(epochs[1])) < len(batches) / 4, "other pairs meet each other"
    longest = [max(len(pairs[number][0]) for number in batch) for batch in epochs[0]]
    assert longest != sorted(longest), "batches do not come by length"


def test_little_is_padding_and_batches_are_about_equal():
    generator = np.random.default_rng(0)
    lengths = generator.integers(3, 40, size=3000)
    pairs = [([5] * length, [5] * max(1, length + int(generator.integers(-2, 3)))) for length in lengths]
    batches = PairBatches(pairs, 1000, **IDS)
    sizes = np.array([[batch.mask.sum(), batch.mask.numel()] for batch in map(batches.at, range(len(batches)))])
    real, padded = sizes.sum(axis=0)
    assert real / padded > 0.85
    assert (sizes[:, 1] > 800).mean() > 0.95


def test_a_target_may_be_empty_and_a_source_may_not():
    batch = PairBatches([([5], [])], 10, **IDS).at(0)
    assert (batch.inputs.tolist(), batch.targets.tolist()) == ([[START]], [[END]])
    with pytest.raises(DataError, match=r"source of pair 1 \(from 0\) is empty"):
        PairBatches([([5], [5]), ([], [5])], 10, **IDS)


def test_a_pair_longer_than_a_batch_is_named():
    PairBatches([([5] * 3, [5]), ([5], [5] * 9)], 10, **IDS)
    with pytest.raises(DataError, match=r"pair 1 \(from 0\) has 11 tokens.*tokens_per_batch=10"):
        PairBatches([([5] * 3, [5]), ([5], [5] * 10)], 10, **IDS)


def test_no_pairs_are_refused():
    with pytest.raises(DataError, match="no pairs"):
        PairBatches([], 10, **IDS)
