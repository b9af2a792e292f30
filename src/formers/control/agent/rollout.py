"""An agent in several environments at once, and what it experiences there."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from formers.control.agent.model import AgentLayer, AgentState
from formers.control.environment import Environment
from formers.layer_inputs import unmade


class Experience(NamedTuple):
    """T steps in B environments: row b is environment b, whose episodes follow each other.

    observations (B, T, ...), actions (B, T, ...) as the policy speaks of them, log_probs (B, T) when they were chosen,
    begins, ends (B, T) bool: the step is the first of its episode, or the last. rewards (B, T), where an episode was cut
    short with what the agent thought it was worth beyond. values (B, T), and `last` (B,) of the step after these. state:
    what was remembered before them.
    """

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    begins: Tensor
    ends: Tensor
    rewards: Tensor
    values: Tensor
    last: Tensor
    state: AgentState | None


class Finished(NamedTuple):
    """An episode that came to its end: its return, and how many steps it took."""

    returned: float
    steps: int


class Rollouts:
    """Environments that go on from call to call, and the agent's memory of them.

    An episode that has ended is followed by another at once, in the same row. What follows from chance is drawn from the
    generator that each call is given, so that the same generator gives the same experience.
    """

    def __init__(self, model: AgentLayer, environments: Sequence[Environment]) -> None:
        self.model, self.environments = model, environments
        self.finished: list[Finished] = []
        self._state: AgentState | None = None

    def restart(self, chance: torch.Generator) -> None:
        """Begin an episode in every environment, and forget all."""
        self._state = None
        self._seen = np.stack([environment.reset(_seed(chance)) for environment in self.environments])
        self._begins = torch.ones(len(self.environments), 1, dtype=torch.bool)
        self._returned = [Finished(0.0, 0)] * len(self.environments)

    @torch.no_grad()
    def collect(self, steps: int, discount: float, chance: torch.Generator) -> Experience:
        """So many steps in each environment."""
        self.model.eval()
        before = self._state = unmade(self._state)
        taken = [self._step(discount, chance) for _ in range(steps)]
        last = self.model(self._observed(), self._begins, self._state, remember=False).value[:, 0]
        seen, actions, log_probs, begins, ends, rewards, values = (
            torch.cat(part, 1) for part in zip(*taken, strict=True)
        )
        return Experience(seen, actions, log_probs, begins, ends, rewards, values, last, before)

    def _step(self, discount: float, chance: torch.Generator) -> tuple[Tensor, ...]:
        """One action in each environment: a column of each part of the experience."""
        seen, begins = self._observed(), self._begins
        acted = self.model(seen, begins, self._state)
        self._state = acted.state
        action = acted.policy.sample(chance)
        outward = self.model.policy.outward(action)[:, 0].numpy()
        moved = [environment.step(move) for environment, move in zip(self.environments, outward, strict=True)]
        rewards = torch.tensor([[one.reward] for one in moved])
        cut = torch.tensor([[one.truncated and not one.terminated] for one in moved])
        ends = torch.tensor([[one.terminated or one.truncated] for one in moved])
        self._seen = np.stack([one.observation for one in moved])
        if cut.any():  # it would have gone on: what was to come counts by what the agent thinks of it
            beyond = self.model(self._observed(), torch.zeros_like(cut), self._state, remember=False).value
            rewards = rewards + discount * torch.where(cut, beyond, 0.0)
        for row, one in enumerate(moved):
            self._count(row, one.reward, bool(ends[row]), chance)
        self._begins = ends
        return seen, action, acted.policy.log_prob(action), begins, ends, rewards, acted.value

    def _count(self, row: int, reward: float, ends: bool, chance: torch.Generator) -> None:
        so_far = self._returned[row]
        now = Finished(so_far.returned + reward, so_far.steps + 1)
        self._returned[row] = Finished(0.0, 0) if ends else now
        if ends:
            self.finished.append(now)
            self._seen[row] = self.environments[row].reset(_seed(chance))

    def _observed(self) -> Tensor:
        """(B, 1, ...)."""
        found: Any = torch.from_numpy(self._seen.copy())
        return found[:, None].to(self.model.spec.observation.dtype)


def advantages(experience: Experience, discount: float, trace: float) -> Tensor:
    """Generalised advantages (B, T): Schulman et al. 2016, arXiv:1506.02438, sums of the temporal differences ahead in the
    episode, each step further worth discount * trace of the one before it."""
    following = torch.cat([experience.values[:, 1:], experience.last[:, None]], 1)
    goes_on = (~experience.ends).to(following.dtype)
    differences = experience.rewards + discount * goes_on * following - experience.values
    found, ahead = torch.empty_like(differences), torch.zeros_like(experience.last)
    for t in reversed(range(differences.shape[1])):
        ahead = differences[:, t] + discount * trace * goes_on[:, t] * ahead
        found[:, t] = ahead
    return found


def _seed(chance: torch.Generator) -> int:
    return int(torch.randint(2**31, (), generator=chance))
