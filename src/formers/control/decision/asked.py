"""What a model reaches in an environment beside what it was asked for, as figures and as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from formers.control.decision.actor import Actor
from formers.control.decision.task import require_spaces
from formers.control.environment import Element, Environment
from formers.data.atomic import replacing
from formers.data.chance import below
from formers.errors import ConfigError
from formers.train.task import Tick, untold

TOGETHER = 64  # episodes


@dataclass(frozen=True)
class Reached:
    """Episodes that were asked for one return: what each of them reached."""

    asked: float
    reached: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.reached) / len(self.reached)


def act_for(
    model: Any,
    environment: str,
    asked: Sequence[float],
    episodes: int,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    tick: Tick = untold,
) -> list[Reached]:
    """Let a model act, some episodes for each return that is asked for; all is a function of the seed.

    Raises ConfigError where the environment's spaces or the length of its episodes do not fit the model.
    """
    if episodes < 1 or not asked:
        raise ConfigError("nothing is asked for; ask for at least one episode of one return")
    _require_fit(model.spec, environment)
    wanted = torch.tensor(asked, dtype=torch.float32).repeat_interleave(episodes)
    numbers = range(0, len(wanted), TOGETHER)
    reached: list[float] = []
    for at in numbers:
        actor = Actor(model, wanted[at : at + TOGETHER], temperature=temperature, seed=seed + at)
        # The same beginnings for each return that is asked for.
        seeds = [
            int(below(1 << 31, seed, number % episodes)[0]) for number in range(at, min(at + TOGETHER, len(wanted)))
        ]
        reached += _play(actor, environment, seeds, model.spec.embedding.horizon)
        tick(min(1.0, (at + TOGETHER) / len(wanted)))
    return [Reached(goal, tuple(reached[i * episodes : (i + 1) * episodes])) for i, goal in enumerate(asked)]


def _require_fit(spec: Any, name: str) -> None:
    environment, embedding = Environment(name), spec.embedding
    environment.close()
    require_spaces(embedding.observation, embedding.action, environment.observation, environment.action, name)
    if environment.limit is not None and environment.limit > embedding.horizon:
        what = f"episodes of {name} have up to {environment.limit} steps, and the model counts {embedding.horizon}"
        raise ConfigError(f"{what}: train it with horizon={environment.limit}")


def _play(actor: Actor, name: str, seeds: Sequence[int], longest: int) -> list[float]:
    """The returns of as many episodes as there are seeds, side by side; one that is over stands still."""
    worlds = [Environment(name) for _ in seeds]
    seen = [world.reset(seed) for world, seed in zip(worlds, seeds, strict=True)]
    earned, running = np.zeros(len(worlds)), [True] * len(worlds)
    for _ in range(longest):
        actions = actor.act(_stacked(seen)).numpy()
        rewards = np.zeros(len(worlds))
        for i in (i for i, runs in enumerate(running) if runs):
            moved = worlds[i].step(actions[i])
            seen[i], rewards[i] = moved.observation, moved.reward
            running[i] = not (moved.terminated or moved.truncated)
        earned += rewards
        if not any(running):
            break
        actor.earn(torch.from_numpy(rewards))
    for world in worlds:
        world.close()
    return [float(each) for each in earned]


def _stacked(seen: Sequence[Element]) -> Tensor:
    return torch.from_numpy(np.stack(seen))


def plot_reached(found: Sequence[Reached], picture: Path, title: str, data: Sequence[float] = ()) -> None:
    """Draw reached against asked return, an episode a dot, and the mean of each; data: the returns that were learned from,
    as ticks. Raises DataError if it cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    asked = [each.asked for each in found]
    axes.axline((asked[0], asked[0]), slope=1, color="grey", linestyle="--", linewidth=1, label="as asked")
    dots = np.array([(each.asked, value) for each in found for value in each.reached])
    axes.scatter(dots[:, 0], dots[:, 1], s=12, alpha=0.4, label="an episode")
    axes.plot(asked, [each.mean for each in found], marker="o", label="mean")
    if len(data):
        axes.plot(np.full(len(data), min(asked)), data, "_", color="black", alpha=0.2, label="recorded")
    axes.set_xlabel("asked return")
    axes.set_ylabel("reached return")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(picture) as (stream,):
        figure.savefig(stream, format="png", dpi=120)
