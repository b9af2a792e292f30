"""Policies: what an agent may do at each step, and how likely it does it."""

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from formers.control.spaces import Choices, Numbers, Space
from formers.init import LogitLinear

DOUBT = -0.5  # where the logarithm of a Gaussian's deviation begins, in halves of what the bounds leave open


class Policy(Protocol):
    """At places (B, T): actions are (B, T) int64 of choices, and (B, T, W) of numbers."""

    def sample(self, chance: torch.Generator | None = None) -> Tensor:
        """Actions, as likely as the policy says."""

    def likeliest(self) -> Tensor:
        """The actions that are most likely."""

    def log_prob(self, actions: Tensor) -> Tensor:
        """(B, T): of numbers, the density."""

    def entropy(self) -> Tensor:
        """(B, T), in nats."""


class Categorical:
    """logits (B, T, N), one for each choice."""

    def __init__(self, logits: Tensor) -> None:
        self.logs = logits.log_softmax(-1)

    def sample(self, chance: torch.Generator | None = None) -> Tensor:
        rows = self.logs.exp().flatten(0, -2)
        return torch.multinomial(rows, 1, generator=chance).view(self.logs.shape[:-1])

    def likeliest(self) -> Tensor:
        return self.logs.argmax(-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        return self.logs.gather(-1, actions[..., None])[..., 0]

    def entropy(self) -> Tensor:
        return -(self.logs.exp() * self.logs).sum(-1)


class Gaussian:
    """mean (B, T, W), and the logarithm of the deviation (W,): numbers independent of each other."""

    def __init__(self, mean: Tensor, log_deviation: Tensor) -> None:
        self.mean, self.log_deviation = mean, log_deviation

    def sample(self, chance: torch.Generator | None = None) -> Tensor:
        drawn = torch.empty_like(self.mean).normal_(generator=chance)
        return self.mean + self.log_deviation.exp() * drawn

    def likeliest(self) -> Tensor:
        return self.mean

    def log_prob(self, actions: Tensor) -> Tensor:
        off = (actions - self.mean) / self.log_deviation.exp()
        return (-off.square() / 2 - self.log_deviation - math.log(2 * math.pi) / 2).sum(-1)

    def entropy(self) -> Tensor:
        each = self.log_deviation + (1 + math.log(2 * math.pi)) / 2
        return each.sum().expand(self.mean.shape[:-1])


class PolicyHead(nn.Module):
    """From hidden states (B, T, M) to a policy over a space.

    Where numbers are bounded, a policy speaks of them as from -1 to 1, and `outward` says what they are outside.
    """

    centre: Tensor
    reach: Tensor

    def __init__(self, space: Space, dim: int) -> None:
        super().__init__()
        self.space = space
        width = space.count if isinstance(space, Choices) else space.shape[0]
        self.linear = LogitLinear(dim, width)
        if isinstance(space, Numbers):
            self.log_deviation = nn.Parameter(torch.full((width,), DOUBT))
            centre, half = unit_of(space)
            self.register_buffer("centre", centre, persistent=False)
            self.register_buffer("reach", half, persistent=False)

    def forward(self, hidden: Tensor) -> Policy:
        told = self.linear(hidden)
        return Categorical(told) if isinstance(self.space, Choices) else Gaussian(told, self.log_deviation)

    def outward(self, actions: Tensor) -> Tensor:
        """What the environment is given: numbers in its units, none beyond their bounds."""
        if isinstance(self.space, Choices):
            return actions
        numbers = self.centre + self.reach * actions
        assert isinstance(self.space, Numbers)
        if self.space.low is None or self.space.high is None:
            return numbers
        return torch.clamp(numbers, numbers.new_tensor(self.space.low), numbers.new_tensor(self.space.high))


def unit_of(space: Numbers) -> tuple[Tensor, Tensor]:
    """The centre of each number's bounds and half of what lies between them, (W,) each; 0 and 1 where it has no bounds."""
    centre, half = torch.zeros(space.width), torch.ones(space.width)
    for i, (low, high) in enumerate(zip(space.low or (), space.high or (), strict=True)):
        if high - low < UNBOUNDED:
            centre[i], half[i] = (low + high) / 2, (high - low) / 2
    return centre, half


UNBOUNDED = 1e6  # some environments write the largest float for a number without bounds
