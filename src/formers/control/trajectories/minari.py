"""Data sets of Minari, Gymnasium's collection of trajectories for offline learning, as ours."""

from typing import Any

import numpy as np
import torch

from formers.control.environment import element, space_of
from formers.control.trajectories.store import Trajectories
from formers.errors import DataError, FormersError


def from_minari(name: str) -> Trajectories:
    """A data set that Minari has on this machine, such as D4RL/pen/human-v2.

    Raises FormersError without Minari, DataError for a data set that it does not have, and ConfigError for one whose
    observations or actions are neither numbers nor choices.
    """
    try:
        import minari
    except ImportError:
        raise FormersError("minari is not here: pip install minari, or record with `formers control record`") from None
    try:
        found = minari.load_dataset(name)
    except ImportError as error:
        raise FormersError(f"Minari cannot read {name} without another package: {error}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"Minari has no data set {name} here: {error}; fetch it by `minari download {name}`") from None
    return _taken_in(name, found)


def _taken_in(name: str, found: Any) -> Trajectories:
    seen, done = found.observation_space, found.action_space
    observation, action = space_of(seen, f"what is seen in {name}"), space_of(done, f"what is done in {name}")
    episodes = [episode for episode in found.iterate_episodes() if len(episode.rewards)]
    if not episodes:
        raise DataError(f"Minari's data set {name} holds no episode")
    observations = np.concatenate([element(seen, episode.observations)[: len(episode.rewards)] for episode in episodes])
    actions = np.concatenate([element(done, episode.actions) for episode in episodes])
    rewards = np.concatenate([np.asarray(episode.rewards, dtype=np.float32) for episode in episodes])
    spec = found.env_spec
    return Trajectories(
        None if spec is None else spec.id,
        observation,
        action,
        torch.from_numpy(observations),
        torch.from_numpy(actions),
        torch.from_numpy(rewards),
        torch.tensor([len(episode.rewards) for episode in episodes]).cumsum(0),
        torch.tensor([bool(episode.terminations[-1]) for episode in episodes]),
        torch.zeros(len(episodes), dtype=torch.int64),
        (f"minari {name}",),
    )
