"""An agent that acts: it does what it thinks best, and learns nothing."""

from typing import Any

import numpy as np
import torch

from formers.control.agent.model import AgentLayer
from formers.control.agent.rollout import Finished
from formers.control.environment import Environment
from formers.control.spaces import Numbers, Space
from formers.data.chance import below
from formers.errors import ConfigError
from formers.train.task import Tick, untold


def require_fit(spec: Any, environment: Environment) -> None:
    """Raise ConfigError unless an environment shows what the agent reads, and takes what it does."""
    for what, mine, theirs in (
        ("sees", spec.observation, environment.observation),
        ("does", spec.action, environment.action),
    ):
        if not _alike(mine, theirs):
            raise ConfigError(
                f"{spec.name} {what} {mine!r}, and in {environment.name} that is {theirs!r}: let it act where it learned"
            )


def _alike(one: Space, other: Space) -> bool:
    if isinstance(one, Numbers) and isinstance(other, Numbers):
        return one.width == other.width
    return one == other


@torch.inference_mode()
def act(
    model: AgentLayer, environment: Environment, episodes: int, *, seed: int = 0, tick: Tick = untold
) -> list[Finished]:
    """So many episodes, one after another, by the likeliest action of each step. All is a function of the seed."""
    if episodes < 1:
        raise ConfigError(f"{episodes} episodes are none; ask for 1 or more")
    require_fit(model.spec, environment)
    model.eval()
    found = []
    for number in range(episodes):
        found.append(_episode(model, environment, int(below(1 << 31, seed, number)[0])))
        tick((number + 1) / episodes)
    return found


def _episode(model: AgentLayer, environment: Environment, seed: int) -> Finished:
    seen, state, returned, steps = environment.reset(seed), None, 0.0, 0
    while True:
        observed = torch.from_numpy(np.asarray(seen)[None, None].copy())
        out = model(observed.to(model.spec.observation.dtype), torch.tensor([[steps == 0]]), state)
        state = out.state
        action = model.policy.outward(out.policy.likeliest())[0, 0]
        seen, reward, terminated, truncated = environment.step(action.numpy())
        returned, steps = returned + reward, steps + 1
        if terminated or truncated:
            return Finished(returned, steps)
