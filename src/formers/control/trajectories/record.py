"""Recording: policies act in an environment, and all that happens is kept."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from formers.control.environment import Element, Environment
from formers.control.spaces import Space
from formers.control.trajectories.policies import Policy
from formers.control.trajectories.store import Trajectories
from formers.data.chance import below
from formers.errors import ConfigError
from formers.train.task import Tick, untold

LONGEST = 1000  # steps, of an environment that cuts no episode itself


def record(
    environment: Environment, policies: Sequence[Policy], episodes: int, *, seed: int = 0, tick: Tick = untold
) -> Trajectories:
    """Let policies take turns, an episode each; what happens is a function of the seed. Raises ConfigError for none."""
    if episodes < 1:
        raise ConfigError(f"{episodes} episodes are nothing to learn from; record at least 1")
    told: list[_Episode] = []
    for number in range(episodes):
        told.append(_Episode(environment, policies[number % len(policies)], seed, number))
        tick((number + 1) / episodes)
    ends = torch.tensor([len(episode.rewards) for episode in told]).cumsum(0)
    return Trajectories(
        environment.name,
        environment.observation,
        environment.action,
        _stacked([seen for episode in told for seen in episode.observations], environment.observation),
        _stacked([done for episode in told for done in episode.actions], environment.action),
        torch.tensor([reward for episode in told for reward in episode.rewards], dtype=torch.float32),
        ends,
        torch.tensor([episode.terminated for episode in told]),
        torch.arange(episodes) % len(policies),
        tuple(policy.name for policy in policies),
    )


class _Episode:
    """One episode, as it went."""

    def __init__(self, environment: Environment, policy: Policy, seed: int, number: int) -> None:
        self.observations: list[Element] = []
        self.actions: list[Element] = []
        self.rewards: list[float] = []
        begin, chance = (int(below(1 << 31, seed, number, use)[0]) for use in range(2))
        generator, seen, longest = np.random.default_rng(chance), environment.reset(begin), environment.limit or LONGEST
        policy.begin()
        for _ in range(longest):
            action = policy.act(seen, generator)
            moved = environment.step(action)
            policy.earn(moved.reward)
            self.observations.append(seen)
            self.actions.append(action)
            self.rewards.append(moved.reward)
            seen, self.terminated = moved.observation, moved.terminated
            if moved.terminated or moved.truncated:
                break


def _stacked(elements: list[Element], space: Space) -> Tensor:
    return torch.from_numpy(np.stack(elements)).to(space.dtype)
