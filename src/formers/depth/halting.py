"""Adaptive computation time: each token decides after every step whether it needs another one."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from formers.places import Places
from formers.spec.core import Site, Spec


class ACT(Spec):
    """Halting probabilities that add up, token by token. Graves 2016, arXiv:1603.08983, as the Universal Transformer has it,
    Dehghani et al. 2018, arXiv:1807.03819.

        p_t = sigmoid(w x_t + b), x_t the state before step t; a token halts at the first step N where
        p_1 + ... + p_N > 1 - eps, and the rest R = 1 - (p_1 + ... + p_(N-1)) takes the place of p_N.

    bias: where b begins. ponder: weight of the loss "ponder", the mean over tokens of N + R: N is a number of steps, so the
    gradient is R's. A token that halts nowhere within the steps that there are has no R, and its p add up to less than 1.

    combine: how the states s_1, s_2, ... behind the steps become the output. "interpolated": each draws it towards
    itself, y <- y + p_t (s_t - y), as the code of the paper has it; "accumulated": their sum, each times p_t, as in Graves.
    halted: what later steps see of a token that has halted. "transformed": its state goes on through every step that some
    token still needs, as in the code; "copied": its last state, as the text of the paper has it.
    """

    eps: float = 0.01
    bias: float = 1.0
    ponder: float = 0.01
    combine: Literal["interpolated", "accumulated"] = "interpolated"
    halted: Literal["transformed", "copied"] = "transformed"

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if not 0 < self.eps < 1:
            yield (
                f"a token halts at probabilities of 1 - eps together, so eps is between 0 and 1, got {self.eps}",
                "eps=0.01",
            )
        if self.ponder < 0:
            yield f"a weight of {self.ponder} on the ponder cost would reward more steps", "ponder=0.01"

    def build(self, site: Site) -> "HaltingUnit":
        return HaltingUnit(self, site.dim)


class HaltingUnit(nn.Module):
    """p = sigmoid(weight x + bias). No `Init` sets it: biases begin at 0 elsewhere."""

    def __init__(self, spec: ACT, dim: int) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(dim))
        self.bias = nn.Parameter(torch.full((), spec.bias))
        nn.init.normal_(self.weight, std=(2 / (dim + 1)) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., M) -> p (...), in fp32 or better: small probabilities are added up."""
        exact = torch.promote_types(x.dtype, torch.float32)
        p: Tensor = ((x.to(exact) * self.weight).sum(-1) + self.bias).sigmoid()
        return p


class Halting:
    """One call's tokens on their way through the steps: which of them still run (B, T), and the output so far (B, T, M).

    chosen: (B, T), the steps at which they halted in an earlier pass, as `halts` tells them, to be obeyed.
    """

    def __init__(self, spec: ACT, x: Tensor, at: Places, chosen: Tensor | None) -> None:
        exact = torch.promote_types(x.dtype, torch.float32)
        self._spec, self._chosen = spec, chosen
        self.real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if at.real is None else at.real
        self.running = self.real
        self.steps = torch.zeros(x.shape[:2], dtype=torch.int64, device=x.device)
        self._total, self._remainder = (torch.zeros(x.shape[:2], dtype=exact, device=x.device) for _ in range(2))
        self.output = torch.zeros_like(x)

    def weigh(self, p: Tensor) -> Tensor:
        """The weights (B, T) of the states that the step now begun leads to, for its halting probabilities p (B, T)."""
        self.steps = self.steps + self.running
        ends = self._total + p > 1 - self._spec.eps if self._chosen is None else self._chosen == self.steps
        stops = self.running & ends
        self.running = self.running & ~stops
        rest = torch.where(stops, 1 - self._total, 0.0)
        weight = torch.where(self.running, p, rest)
        self._total, self._remainder = self._total + weight, self._remainder + rest
        return weight

    def take(self, state: Tensor, weight: Tensor) -> None:
        """Let the state (B, T, M) behind a step into the output."""
        weight = weight[..., None].to(state.dtype)
        if self._spec.combine == "interpolated":
            state = state - self.output
        self.output = self.output + weight * state

    @property
    def halts(self) -> Tensor:
        """(B, T): the step, counted from 1, at which each token has halted; 0: it has not."""
        return self.steps.masked_fill(self.running, 0)

    def cost(self) -> Tensor:
        """The weighted mean of steps and remainder over real tokens."""
        spent = ((self.steps + self._remainder) * self.real).sum()
        return self._spec.ponder * spent / self.real.sum().clamp(min=1)
