"""Policies that were trained by `formers control train`, for recording what they do."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from formers.control.agent.model import AgentLayer
from formers.control.decision.actor import Actor
from formers.control.decision.model import DecisionLayer
from formers.control.environment import Element
from formers.control.run import read_note
from formers.control.spaces import Space
from formers.control.trajectories.policies import Policy
from formers.errors import ConfigError
from formers.train import load_model


def trained_policy(run: Path, environment: str) -> Policy:
    """The policy of a run; a Decision Transformer is asked for the highest return that it learned from.

    Raises CheckpointError where there is no run that acts, and ConfigError where it acts elsewhere, or does not see all.
    """
    note = read_note(run)
    if note.environment != environment:
        raise ConfigError(f"{run} acts in {note.environment}, and not in {environment}")
    if note.more.get("hide"):
        raise ConfigError(f"{run} does not see all that is seen in {environment}, so it cannot act on what is recorded")
    model: Any = load_model(run)
    if isinstance(model, DecisionLayer):
        return DecisionPolicy(run.name, model, float(note.more["highest"]))
    if isinstance(model, AgentLayer):
        return AgentPolicy(run.name, model)
    raise ConfigError(f"{run} holds a {type(model).__name__}, which does not act")


class DecisionPolicy:
    """A Decision Transformer that is asked for one return in every episode."""

    def __init__(self, name: str, model: DecisionLayer, wanted: float) -> None:
        self.name, self._model, self._wanted = name, model, torch.tensor([wanted])
        self.begin()

    def begin(self) -> None:
        self._actor = Actor(self._model, self._wanted)

    def act(self, observation: Element, chance: np.random.Generator) -> Element:
        return np.asarray(self._actor.act(_row(observation, self._model.spec.embedding.observation))[0].numpy())

    def earn(self, reward: float) -> None:
        self._actor.earn(torch.tensor([reward]))


class AgentPolicy:
    """An agent with a memory, which does what it thinks best."""

    def __init__(self, name: str, model: AgentLayer) -> None:
        self.name, self._model = name, model
        self.begin()

    def begin(self) -> None:
        self._state: Any = None

    @torch.inference_mode()
    def act(self, observation: Element, chance: np.random.Generator) -> Element:
        seen = _row(observation, self._model.spec.observation)[:, None]
        out = self._model(seen, torch.tensor([[self._state is None]]), self._state)
        self._state = out.state
        return np.asarray(self._model.policy.outward(out.policy.likeliest())[0, 0].numpy())

    def earn(self, reward: float) -> None:
        """It has learned."""


def _row(observation: Element, space: Space) -> Tensor:
    return torch.from_numpy(np.asarray(observation)[None].copy()).to(space.dtype)
