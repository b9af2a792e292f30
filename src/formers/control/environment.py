"""Gymnasium's environments, with what is seen and done there as elements of a `Space`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from formers.control.spaces import Choices, Numbers, Space
from formers.errors import ConfigError, FormersError

UNBOUNDED = 1e6  # some environments write the largest float where a number has no bounds
Element = npt.NDArray[Any]  # of a space: numbers (width,) float32, or a choice () int64


class Moved(NamedTuple):
    """What came of an action. terminated: the episode is over; truncated: it was cut by the environment's time limit."""

    observation: Element
    reward: float
    terminated: bool
    truncated: bool


class Environment:
    """An environment by its id, such as CartPole-v1. Boxes of any shape are flattened to numbers.

    hide: numbers of what is seen that are left out, counted from 0. limit: steps after which it cuts an episode; None: it
    never does. Raises FormersError without Gymnasium, and ConfigError for an id that it does not know, or for what is seen
    or done there being neither numbers nor choices.
    """

    def __init__(self, name: str, hide: Sequence[int] = ()) -> None:
        self.name = name
        self._made = _made(name)
        try:
            if hide:
                self._made = hiding(self._made, hide)
            self.observation = space_of(self._made.observation_space, f"what is seen in {name}")
            self.action = space_of(self._made.action_space, f"what is done in {name}")
        except ConfigError:
            self.close()
            raise
        spec = self._made.spec
        self.limit: int | None = None if spec is None else spec.max_episode_steps

    def reset(self, seed: int) -> Element:
        """Begin an episode, which `seed` determines: the first observation."""
        seen, _ = self._made.reset(seed=seed)
        return element(self._made.observation_space, seen)

    def step(self, action: Element) -> Moved:
        """Do an action."""
        space = self._made.action_space
        given = int(action) + int(space.start) if isinstance(self.action, Choices) else action.reshape(space.shape)
        seen, reward, terminated, truncated, _ = self._made.step(given)
        return Moved(element(self._made.observation_space, seen), float(reward), bool(terminated), bool(truncated))

    def close(self) -> None:
        """Give back what it holds."""
        self._made.close()


def space_of(space: Any, what: str) -> Space:
    """A space of Gymnasium's as one of ours. Raises ConfigError where there is none."""
    kind = type(space).__name__
    if kind == "Discrete":
        return Choices(int(space.n))
    if kind != "Box":
        raise ConfigError(
            f"{what} is a {kind}, and it must be a Box or Discrete: wrap it by gymnasium.wrappers.FlattenObservation"
        )
    low, high = (np.asarray(bound, dtype=np.float64).ravel() for bound in (space.low, space.high))
    if not (np.abs([low, high]) < UNBOUNDED).all():
        return Numbers(low.size)
    return Numbers(low.size, tuple(map(float, low)), tuple(map(float, high)))


def element(space: Any, value: Any) -> Element:
    """An element, or several, of Gymnasium's space as we keep them."""
    if type(space).__name__ == "Discrete":
        return np.asarray(value, dtype=np.int64) - int(space.start)
    rows = np.asarray(value, dtype=np.float32)
    return rows.reshape(*rows.shape[: rows.ndim - len(space.shape)], -1)


def hiding(made: Any, hide: Sequence[int]) -> Any:
    """A Gymnasium environment, some numbers of what is seen left out. Raises ConfigError where there are no such numbers."""
    import gymnasium

    space = made.observation_space
    if type(space).__name__ != "Box" or len(space.shape) != 1:
        raise ConfigError(f"numbers are hidden of a row of them, and what is seen is {space}: leave --hide out")
    kept = [i for i in range(space.shape[0]) if i not in hide]
    if not kept or not set(hide) <= set(range(space.shape[0])):
        told = f"{space.shape[0]} numbers are seen, counted from 0, and one of them must be left"
        raise ConfigError(f"--hide {' '.join(map(str, hide))} cannot be: {told}")
    seen = gymnasium.spaces.Box(space.low[kept], space.high[kept], dtype=space.dtype)
    return gymnasium.wrappers.TransformObservation(made, lambda numbers: numbers[kept], seen)


def _made(name: str) -> Any:
    try:
        import gymnasium
    except ImportError:
        raise FormersError("environments are Gymnasium's, which is not here: pip install 'formers[control]'") from None
    try:
        return gymnasium.make(name)
    except (gymnasium.error.Error, ImportError) as error:
        raise ConfigError(f"there is no environment {name} to be had: {error}") from None
