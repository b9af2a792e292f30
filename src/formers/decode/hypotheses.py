"""What a beam search has found: which tokens grew from which, and the best hypotheses that have ended."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from formers.decode.prompt import Finish

NEVER = float("-inf")


def length_penalty(length: Any, alpha: float) -> Any:
    """((5 + length) / 6) ** alpha of a number or a tensor: GNMT (arXiv:1609.08144) divides log-probabilities by it."""
    return ((5 + length) / 6) ** alpha


@dataclass(frozen=True)
class Hypothesis:
    """One way to write on.

    tokens: the new ids, without the stop id. text: their text, or None where there was no tokenizer.
    log_probability: the sum over the tokens and the stop id, in nats.
    score: log_probability / length_penalty(length, alpha), where the stop id counts in the length.
    finish: "stop" at a stop id, "length" where the model can read no further, "limit" at max_new.
    """

    tokens: list[int]
    text: str | None
    log_probability: float
    score: float
    finish: Finish


class Trace:
    """For each source, step and place: the token that was written, and the place that it was written behind."""

    def __init__(self, sources: int, steps: int, width: int, device: torch.device) -> None:
        self._tokens = torch.zeros(sources, steps, width, dtype=torch.int64, device=device)
        self._parents = torch.zeros_like(self._tokens)

    def write(self, sources: Tensor, step: int, tokens: Tensor, parents: Tensor) -> None:
        """sources (n,), tokens and parents (n, W)."""
        self._tokens[sources, step], self._parents[sources, step] = tokens, parents

    def read(self, source: int, length: int, place: int) -> list[int]:
        """The tokens that lead to a place after `length` steps."""
        tokens, parents = self._tokens[source, :length].tolist(), self._parents[source, :length].tolist()
        backwards = []
        for step in reversed(range(length)):
            backwards.append(tokens[step][place])
            place = parents[step][place]
        return backwards[::-1]


class Ended:
    """The best hypotheses of each source that have ended: where they end in the trace, and what they score."""

    def __init__(self, sources: int, count: int, like: Tensor) -> None:
        self.count = count
        self._scores = like.new_full((sources, count), NEVER)
        self._totals = like.new_full((sources, count), NEVER)
        self._lengths = torch.zeros(sources, count, dtype=torch.int64, device=like.device)
        self._places = torch.zeros_like(self._lengths)

    def offer(self, sources: Tensor, totals: Tensor, length: int, alpha: float) -> None:
        """Keep what is good enough of totals (n, W), the log-probabilities of hypotheses that end at this length."""
        places = torch.arange(totals.shape[1], device=totals.device).expand_as(totals)
        scores = torch.cat([self._scores[sources], totals / length_penalty(length, alpha)], 1)
        self._scores[sources], best = scores.topk(self.count, dim=-1)
        for known, new in (
            (self._totals, totals),
            (self._lengths, torch.full_like(places, length)),
            (self._places, places),
        ):
            known[sources] = torch.cat([known[sources], new], 1).gather(1, best)

    def worst(self, sources: Tensor) -> Tensor:
        """(n,) the score to beat; minus infinity while fewer than `count` have ended."""
        return self._scores[sources, -1]

    def of(self, source: int) -> list[tuple[float, int, int]]:
        """Log-probability, length and place of each, best first."""
        rows = zip(
            self._totals[source].tolist(), self._lengths[source].tolist(), self._places[source].tolist(), strict=True
        )
        return [row for row in rows if row[0] > NEVER]
