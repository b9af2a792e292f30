"""Which exit would have been best, told by those who know the targets. Elbayad et al. 2020, arXiv:1910.10073, section 3."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from formers.spec.core import Site, Spec


class Judged(NamedTuple):
    """How each of N exits did on the targets of rows, without a gradient.

    likelihood: (B, T, N), log p of the target. right: (B, T, N) bool, whether the target was the likeliest token.
    pos: (1 or B, T), where the tokens stand that it is predicted from. real: (B, T) bool, which of them have a target.
    """

    likelihood: Tensor
    right: Tensor
    pos: Tensor
    real: Tensor


class ExitOracle(Spec):
    """The exit of most merit, each block that it takes having its price; of equals, the lowest.

    price: of one more block, the paper's lambda, in the unit of the merit. spread: the paper's sigma, in squared tokens:
    the merit of a token is that of all tokens of its row, each by exp(-distance² / spread); 0: its own alone. Positions
    are distances, and padding does not count. For rows as a whole the merit is summed over the row, without a spread.
    """

    price: float = 0.0
    spread: float = 0.0

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.price < 0:
            yield f"a block that costs {self.price} would be taken for its own sake", "price=0.02"
        if self.spread < 0:
            yield f"the weight of far tokens would grow with a spread of {self.spread}", "spread=1.0"

    def merit(self, judged: Judged) -> Tensor:
        """(B, T, N): what speaks for each exit of each token."""
        raise NotImplementedError

    def of_tokens(self, judged: Judged) -> Tensor:
        """(B, T) int64: the best exit of each token, from 1 to N; anything where nothing is real."""
        merit = self._counted(judged)
        return self._best(smoothed(merit, judged.pos, self.spread) if self.spread else merit)

    def of_rows(self, judged: Judged) -> Tensor:
        """(B,) int64: the best exit of each row."""
        return self._best(self._counted(judged).sum(1))

    def _counted(self, judged: Judged) -> Tensor:
        return torch.where(judged.real[..., None], self.merit(judged), 0)

    def _best(self, merit: Tensor) -> Tensor:
        exits = torch.arange(1, merit.shape[-1] + 1, device=merit.device)
        return lowest_of_best(merit - self.price * exits)


class LikelihoodOracle(ExitOracle):
    """The merit of an exit is the log-likelihood of the target, in nats."""

    def merit(self, judged: Judged) -> Tensor:
        return judged.likelihood


class CorrectnessOracle(ExitOracle):
    """The merit of an exit is 1 where it has the target for its likeliest token, else 0."""

    def merit(self, judged: Judged) -> Tensor:
        return judged.right.to(judged.likelihood.dtype)


def smoothed(merit: Tensor, pos: Tensor, spread: float) -> Tensor:
    """merit (B, T, N) summed over the tokens of a row, by exp(-|t - t'|² / spread). Elbayad et al., equation 12.

    Takes memory of T² numbers a row where there is padding, and T² for all rows where there is none.
    """
    apart = (pos[:, :, None] - pos[:, None, :]).to(merit.dtype)
    return torch.exp(-apart.square() / spread) @ merit


def lowest_of_best(scores: Tensor) -> Tensor:
    """(...) int64, from 1: the first of the highest scores (..., N). Sums that differ by their rounding alone are equal."""
    rounding = 32 * torch.finfo(scores.dtype).eps * scores.abs().amax(-1, keepdim=True)
    exits = torch.arange(1, scores.shape[-1] + 1, device=scores.device)
    best = scores >= scores.amax(-1, keepdim=True) - rounding
    return torch.where(best, exits, scores.shape[-1]).amin(-1)
