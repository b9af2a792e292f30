"""Chance without a generator: numbers and permutations that are pure functions of a seed and counters.

NumPy promises no stable streams between its versions; a resumed run needs one. So the bits come from SplitMix64's
finaliser (Steele, Lea & Flood 2014), which is fixed here for good.
"""

import numpy as np
import numpy.typing as npt
import torch

Counters = npt.NDArray[np.uint64]

_ROUNDS = 6
_WORD = (1 << 64) - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(seed: int, *counters: npt.ArrayLike) -> Counters:
    """64 random bits for every element of the broadcast non-negative counters; at least one dimension.

    The order of the counters matters: mix(0, 1, 2) and mix(0, 2, 1) have nothing in common.
    """
    bits = _finalise(np.array([seed & _WORD], dtype=np.uint64))
    for counter in counters:
        bits = _finalise(bits ^ (np.atleast_1d(np.asarray(counter)).astype(np.uint64) * _GOLDEN + _GOLDEN))
    return bits


def below(limit: int, seed: int, *counters: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Whole numbers from 0 to limit - 1, one for every element of the counters."""
    return (mix(seed, *counters) % np.uint64(limit)).astype(np.int64)


def shuffled(index: npt.NDArray[np.int64], size: int, seed: int, key: npt.ArrayLike = 0) -> npt.NDArray[np.int64]:
    """Where `index` (each 0 <= index < size) goes in a random permutation of range(size); nothing is stored.

    `key` (broadcast to index) chooses the permutation, an epoch say. A Feistel network over side x side cells, where
    side is the square root of size rounded up; what lands outside range(size) walks on until it is inside again
    (Black & Rogaway 2002), which keeps the map one-to-one and is seldom needed, for side**2 is hardly more than size.
    """
    side = np.uint64(_square_root_up(size))
    place = index.astype(np.uint64)
    keys = np.broadcast_to(np.asarray(key), place.shape)
    walking = np.ones(place.shape, dtype=bool)
    while walking.any():
        place[walking] = _feistel(place[walking], side, seed, keys[walking])
        walking = place >= np.uint64(size)
    return place.astype(np.int64)


def generator(seed: int, step: int) -> torch.Generator:
    """A fresh torch generator for one step: what is drawn from it is a function of (seed, step)."""
    return torch.Generator().manual_seed(int(mix(seed, step)[0] >> np.uint64(1)))


def _feistel(place: Counters, side: np.uint64, seed: int, keys: npt.NDArray[np.generic]) -> Counters:
    left, right = place // side, place % side
    for turn in range(_ROUNDS):
        left, right = right, (left + mix(seed, keys, turn, right) % side) % side
    return left * side + right


def _finalise(bits: Counters) -> Counters:
    bits = bits + _GOLDEN
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _square_root_up(size: int) -> int:
    side = int(np.sqrt(size))
    while side * side < size:
        side += 1
    return side
