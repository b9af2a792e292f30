"""Choosing the next token: temperature, top-k, nucleus, min-p and the repetition penalty, for a batch at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from formers.errors import FormersError

# Below this a temperature could overflow the logits; at this one it already is an argmax.
COLDEST = 1e-6

# Odd, so that no two rows share a stream, and far from 1, so that neighbouring seeds have no row in common.
SEED_STRIDE = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Sampling:
    """How to choose a token from its logits. The penalty acts first, then the others in the order of their fields.

    temperature: divides the logits; 0 always takes the likeliest token.
    top_k: keep the k likeliest tokens.
    top_p: keep the likeliest tokens that together reach this probability (nucleus, arXiv:1904.09751).
    min_p: keep the tokens at least this times as likely as the likeliest (arXiv:2407.01082).
    repetition_penalty: makes tokens that were seen less likely where above 1 (CTRL, arXiv:1909.05858). Differs from the
        paper: a negative logit is multiplied, since dividing it would make its token likelier.

    Raises FormersError where a value is out of its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        heat = self.temperature
        _require(heat == 0 or COLDEST <= heat < math.inf, f"temperature={heat}", "a positive number", "0 for greedy")
        if self.top_k is not None:
            whole = isinstance(self.top_k, int) and self.top_k >= 1
            _require(whole, f"top_k={self.top_k}", "a whole number from 1 up", "None")
        if self.top_p is not None:
            _require(0 < self.top_p <= 1, f"top_p={self.top_p}", "above 0 and at most 1", "None")
        if self.min_p is not None:
            _require(0 <= self.min_p <= 1, f"min_p={self.min_p}", "between 0 and 1", "None")
        penalty = self.repetition_penalty
        _require(0 < penalty < math.inf, f"repetition_penalty={penalty}", "a positive number", "1.0 for none")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken, so that nothing is random."""
        return self.temperature == 0

    @property
    def looks_back(self) -> bool:
        """Whether the choice depends on the tokens that came before."""
        return self.repetition_penalty != 1


def _require(good: bool, given: str, range_: str, off: str) -> None:
    if not good:
        raise FormersError(f"{given} cannot be used to sample: give {range_}, or {off}")


GREEDY = Sampling(temperature=0)


def choose(logits: Tensor, sampling: Sampling, uniform: Tensor | None = None, history: Tensor | None = None) -> Tensor:
    """One token for each row.

    logits: (B, V). uniform: (B,) numbers in [0, 1), all the chance there is; may be None where sampling is greedy.
    history: (B, L) int64, the tokens that a repetition penalty falls on, once however often they stand there; may be
    None where there is no penalty.
    Returns (B,) int64.
    """
    scores = logits.detach()
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if history is not None and sampling.looks_back:
        seen, penalty = scores.gather(1, history), sampling.repetition_penalty
        scores = scores.scatter(1, history, torch.where(seen < 0, seen * penalty, seen / penalty))
    if sampling.greedy:
        return likeliest(scores)
    if uniform is None:
        raise ValueError("sampling at a temperature needs uniform numbers, one for each row")
    weights, ids = weigh(scores, sampling)
    reach = weights.cumsum(-1)
    # The first place that reaches beyond u * total. A weight of zero adds no reach, so it is never that place.
    place = torch.searchsorted(reach, uniform[:, None].to(reach.dtype) * reach[:, -1:], right=True)
    place = place.clamp_(max=reach.shape[-1] - 1)
    return (place if ids is None else ids.gather(1, place))[:, 0]


def likeliest(scores: Tensor) -> Tensor:
    """(B, V) -> (B,), the index of the largest."""
    if scores.device.type == "cpu":
        # NumPy's argmax is vectorised where PyTorch's is not: 9 microseconds instead of 150 for 50,257 logits.
        return torch.from_numpy(scores.numpy().argmax(-1))
    return scores.argmax(-1)


def weigh(scores: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor | None]:
    """The weights (B, N) to draw by, and the tokens (B, N) they belong to, or None where N is the vocabulary in order.

    A token that was filtered out weighs nothing. The weights need not sum to one. With equal logits at the k-th
    place exactly k tokens are kept; with equal ones at the border of the nucleus all of them are.
    """
    ids = None
    if sampling.top_k is not None and sampling.top_k < scores.shape[-1]:
        scores, ids = scores.topk(sampling.top_k, dim=-1)
    weights = (scores if sampling.temperature == 1 else scores / sampling.temperature).softmax(-1)
    least = None
    if sampling.min_p:
        least = weights.amax(-1, keepdim=True) * sampling.min_p
    if sampling.top_p is not None and sampling.top_p < 1:
        border = _nucleus_border(weights, sampling.top_p)
        least = border if least is None else torch.maximum(least, border)
    if least is not None:
        # As numbers, not as bools: comparing and multiplying takes a tenth of the time of masking.
        weights = weights * torch.ge(weights, least, out=torch.empty_like(weights))
    return weights, ids


def _nucleus_border(weights: Tensor, top_p: float) -> Tensor:
    """(B, N) -> (B, 1), the weight of the least likely token of the nucleus."""
    rising = _sorted(weights)
    mass = rising.cumsum(-1)
    place = torch.searchsorted(mass, mass[:, -1:] * (1 - top_p), right=True)
    return rising.gather(-1, place.clamp_(max=mass.shape[-1] - 1))


def _sorted(weights: Tensor) -> Tensor:
    if weights.device.type == "cpu":
        # NumPy sorts bare values 30 times as fast as PyTorch sorts them together with their places.
        return torch.from_numpy(np.sort(weights.numpy(), axis=-1))
    return weights.sort(dim=-1).values


def row_seeds(seed: int, rows: int) -> list[int]:
    """A seed for each row; the first is `seed` itself, so that any row can be drawn again alone by its own seed."""
    return [(seed + row * SEED_STRIDE) % 2**63 for row in range(rows)]


def uniforms(seeds: Sequence[int], steps: int, device: torch.device | None = None) -> Tensor:
    """(rows, steps) numbers in [0, 1), in steps of 2^-24. Row and column depend on the row's seed and the column only.

    Philox4x64-10 (Salmon et al. 2011): a number is had by its place alone, and the native engine draws the same ones.
    """
    raw = np.stack([np.random.Philox(key=seed).random_raw(steps) for seed in seeds])
    return torch.from_numpy((raw >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)).to(device)
