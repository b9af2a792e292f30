"""Counter-based chance: fixed for good, one-to-one where it must be, and fair."""

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from formers.data.chance import below, generator, mix, shuffled


def test_the_bits_never_change():
    """A resumed run relies on these very numbers; SplitMix64's own first output for seed 0 is the first of them."""
    assert int(mix(0)[0]) == 0xE220A8397B1DCDAF
    assert below(1000, 7, np.arange(6)).tolist() == [818, 347, 969, 916, 287, 933]
    assert shuffled(np.arange(10), 10, seed=7).tolist() == [1, 6, 4, 5, 3, 0, 8, 9, 2, 7]


@given(st.integers(1, 500), st.integers(-(2**63), 2**65), st.integers(0, 2**40))
def test_a_shuffle_is_one_to_one(size, seed, key):
    assert sorted(shuffled(np.arange(size), size, seed, key)) == list(range(size))


@given(st.integers(1, 500), st.integers(0, 9), st.data())
def test_a_place_goes_where_it_goes_whatever_is_asked_beside_it(size, seed, data):
    asked = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1)))
    keys = np.arange(len(asked)) % 3
    whole = np.stack([shuffled(np.arange(size), size, seed, key) for key in range(3)])
    np.testing.assert_array_equal(shuffled(asked, size, seed, keys), whole[keys, asked])


def test_shuffles_are_as_disordered_as_chance_has_it():
    size, keys = 400, 100
    places = np.arange(size)
    shuffles = [shuffled(places, size, 0, key) for key in range(keys)]
    after_places = [np.corrcoef(places, shuffle)[0, 1] for shuffle in shuffles]
    neighbours = [np.corrcoef(shuffle[:-1], shuffle[1:])[0, 1] for shuffle in shuffles]
    next_shuffles = [np.corrcoef(one, other)[0, 1] for one, other in pairwise(shuffles)]
    # The correlation of two random orders has mean 0 and standard deviation 1 / sqrt(size).
    for correlations in (after_places, neighbours, next_shuffles):
        assert abs(np.mean(correlations)) < 4 / np.sqrt(size * keys)
        assert 0.75 < np.std(correlations) * np.sqrt(size) < 1.25


def test_every_place_is_equally_likely():
    places, keys = np.tile(np.arange(7), 7_000), np.repeat(np.arange(7_000), 7)
    counts = np.zeros((7, 7))
    np.add.at(counts, (places, shuffled(places, 7, 3, keys)), 1)
    # 49 cells of 1000 expected, standard deviation 29.
    assert abs(counts - 1000).max() < 150


def test_numbers_below_a_limit_are_spread_evenly():
    counts = np.bincount(below(10, 0, np.arange(100_000)), minlength=10)
    assert len(counts) == 10
    assert abs(counts - 10_000).max() < 500


def test_counters_and_their_order_matter():
    values = {int(mix(*words)[0]) for words in [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 1, 2), (0, 2, 1)]}
    assert len(values) == 7


def test_a_generator_belongs_to_its_step():
    draws = [torch.rand(3, generator=generator(seed, step)).tolist() for seed, step in [(0, 1), (0, 1), (0, 2), (1, 1)]]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) == 3
