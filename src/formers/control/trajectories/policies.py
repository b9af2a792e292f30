"""Who acts while trajectories are recorded: at random, by a script, or as either one allows the other."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from formers.control.environment import Element
from formers.control.spaces import Choices, Space
from formers.errors import ConfigError

# Shares of actions that are drawn at random: the best that is known, and how it gets worse.
SKILLS = (0.0, 0.2, 0.4, 0.6, 1.0)


class Policy(Protocol):
    """Acts by what it sees. name: as data sets call it."""

    @property
    def name(self) -> str: ...

    def begin(self) -> None:
        """Forget what came before: an episode begins."""

    def act(self, observation: Element, chance: np.random.Generator) -> Element:
        """The action for an observation; all that is random comes from `chance`."""

    def earn(self, reward: float) -> None:
        """Be told what the action earned."""


class Random:
    """Any action, each as likely: numbers without bounds are drawn from N(0, 1)."""

    name = "random"

    def __init__(self, action: Space) -> None:
        self._action = action

    def begin(self) -> None:
        """It knows nothing."""

    def act(self, observation: Element, chance: np.random.Generator) -> Element:
        space: Any = self._action
        if isinstance(space, Choices):
            return np.asarray(chance.integers(space.count))
        if space.low is None:
            return chance.standard_normal(space.width).astype(np.float32)
        return chance.uniform(space.low, space.high).astype(np.float32)

    def earn(self, reward: float) -> None:
        """It does not mind."""


class Script:
    """A rule from what is seen to what is done."""

    def __init__(self, name: str, rule: Callable[[Element], float], action: Space) -> None:
        self.name, self._rule, self._action = name, rule, action

    def begin(self) -> None:
        """It remembers nothing."""

    def act(self, observation: Element, chance: np.random.Generator) -> Element:
        told = self._rule(observation)
        if isinstance(self._action, Choices):
            return np.asarray(int(told))
        low, high = (getattr(self._action, bound) for bound in ("low", "high"))
        return np.clip(np.asarray([told], dtype=np.float32), low, high).astype(np.float32)

    def earn(self, reward: float) -> None:
        """It does not learn."""


class Noisy:
    """Another policy, but for a share of the actions, which are drawn at random."""

    def __init__(self, policy: Policy, share: float, action: Space) -> None:
        self.name = f"{policy.name}, {share:.0%} at random"
        self._policy, self._share, self._random = policy, share, Random(action)

    def begin(self) -> None:
        self._policy.begin()

    def act(self, observation: Element, chance: np.random.Generator) -> Element:
        chosen = self._policy.act(observation, chance)
        return self._random.act(observation, chance) if chance.random() < self._share else chosen

    def earn(self, reward: float) -> None:
        self._policy.earn(reward)


def mixed_skill(policy: Policy, action: Space) -> list[Policy]:
    """A policy, and the same with more and more of its actions drawn at random."""
    return [_at(policy, share, action) for share in SKILLS]


def _at(policy: Policy, share: float, action: Space) -> Policy:
    if share == 0:
        return policy
    return Random(action) if share == 1 else Noisy(policy, share, action)


def cart_pole(seen: Element) -> float:
    """Push towards where the pole falls, and the cart back to the middle."""
    x, speed, angle, turning = map(float, seen)
    return float(angle + 0.35 * turning + 0.03 * x + 0.06 * speed > 0)


def pendulum(seen: Element) -> float:
    """Swing up by the energy that is missing, then hold."""
    up, side, turning = map(float, seen)
    if up > 0.85:
        return -12 * side - 3 * turning
    missing = 15 * (1 - up) - turning**2 / 2  # of the energy that standing upright takes
    return float(np.sign(turning or 1.0) * np.clip(missing, -2, 2))


def mountain_car(seen: Element) -> float:
    """Push the way that the car rolls: 0 to the left, 2 to the right."""
    return 2.0 if float(seen[1]) >= 0 else 0.0


def mountain_car_continuous(seen: Element) -> float:
    """The same, as a force."""
    return mountain_car(seen) - 1


SCRIPTS: dict[str, Callable[[Element], float]] = {
    "CartPole-v0": cart_pole,
    "CartPole-v1": cart_pole,
    "Pendulum-v1": pendulum,
    "MountainCar-v0": mountain_car,
    "MountainCarContinuous-v0": mountain_car_continuous,
}


def scripted(environment: str, action: Space) -> Policy:
    """A good policy for an environment that one is known for. Raises ConfigError for any other."""
    if environment not in SCRIPTS:
        raise ConfigError(f"no script is known for {environment}, only for {', '.join(SCRIPTS)}; let others act")
    return Script("scripted", SCRIPTS[environment], action)
