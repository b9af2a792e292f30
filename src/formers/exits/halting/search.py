"""Thresholds of confidence, one for each exit, found on held-out tokens. Elbayad et al. 2020, arXiv:1910.10073."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

CANDIDATES = 40  # thresholds that are tried at each exit: quantiles of what was seen there
NOBODY = 2.0  # a threshold that no confidence between 0 and 1 reaches
ROUNDS = 20  # times that all exits are gone through, at most


class Found(NamedTuple):
    """Thresholds (N - 1) of all exits but the last, and how held-out tokens do by them: the mean exit, from 1 to N, and the
    share that is right."""

    thresholds: tuple[float, ...]
    exit: float
    accuracy: float


def leaves(confidence: Tensor, thresholds: Tensor) -> Tensor:
    """(...) int64: the first exit, from 1 to N, at which the confidence (..., N - 1) is at least its threshold (N - 1)."""
    count = confidence.shape[-1]
    exits = torch.arange(1, count + 1, device=confidence.device)
    return torch.where(confidence >= thresholds, exits, count + 1).amin(-1)


def search(confidence: Tensor, right: Tensor, price: float) -> Found:
    """The thresholds of the highest accuracy - price * mean exit.

    confidence: (tokens, N - 1), between 0 and 1, of each token at all exits but the last; where a threshold is 2, nobody
    is to leave. right: (tokens, N) bool, whether what an exit
    says is right. price: what one more block costs, in accuracy.

    One threshold for all exits comes first, then those of one exit after another are changed for as long as it helps, so
    the same tokens always give the same thresholds. What is searched is a table: tokens before are taken to have run in
    full, which those who leave for good have not, so the model is asked again by the thresholds that were found.

    Raises ValueError where the shapes do not fit or there are no tokens.
    """
    if confidence.shape[0] == 0 or right.shape != (confidence.shape[0], confidence.shape[1] + 1):
        raise ValueError(
            f"confidence (tokens, N - 1) and right (tokens, N) of some tokens: got {tuple(confidence.shape)} and "
            f"{tuple(right.shape)}"
        )
    tried = _Tried(confidence, right, price)
    best = max((tried(torch.full_like(confidence[0], level)) for level in _levels(confidence.flatten())), key=_worth)
    for _ in range(ROUNDS):
        before = best[0]
        for exit_ in range(confidence.shape[1]):
            best = max(
                (best, *(tried(changed) for changed in _changed(best[1], exit_, confidence[:, exit_]))), key=_worth
            )
        if best[0] == before:
            break
    thresholds = best[1]
    out = leaves(confidence, thresholds)
    return Found(tuple(thresholds.tolist()), out.double().mean().item(), _share_right(right, out))


class _Tried:
    """How much thresholds are worth, and these thresholds."""

    def __init__(self, confidence: Tensor, right: Tensor, price: float) -> None:
        self._confidence, self._right, self._price = confidence, right, price

    def __call__(self, thresholds: Tensor) -> tuple[float, Tensor]:
        out = leaves(self._confidence, thresholds)
        return _share_right(self._right, out) - self._price * out.double().mean().item(), thresholds


def _worth(tried: tuple[float, Tensor]) -> float:
    return tried[0]


def _share_right(right: Tensor, out: Tensor) -> float:
    return right.gather(1, (out - 1)[:, None]).double().mean().item()


def _levels(seen: Tensor) -> Iterator[float]:
    """What is worth trying of the confidence that was seen, and more than any."""
    ordered = seen.sort().values
    places = torch.linspace(0, len(ordered) - 1, CANDIDATES).long().unique()
    yield from ordered[places].tolist()
    yield NOBODY


def _changed(thresholds: Tensor, exit_: int, seen: Tensor) -> Iterator[Tensor]:
    for level in _levels(seen):
        changed = thresholds.clone()
        changed[exit_] = level
        yield changed
