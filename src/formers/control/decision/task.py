"""Learning to act from recorded trajectories: windows of steps, each action told by what led to it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.control.decision.embedding import NumbersReader
from formers.control.decision.model import DecisionTransformer
from formers.control.spaces import Choices, Numbers, Space
from formers.control.trajectories.store import Trajectories
from formers.data.chance import below, shuffled
from formers.errors import ConfigError, DataError
from formers.spec import Spec
from formers.train.spec import TrainSpec
from formers.train.task import Batch, Loss, Size, Tick, device_of, to_device, untold

HELD_OUT = 0.05  # of the episodes


class Decisions:
    """Windows of `length` steps; a `Task`. Every step is as likely as any other to be the first of a window, so that an
    episode is drawn in proportion to its length; where it ends sooner, padding stands before it. Some of the episodes are
    held out.

    The loss is that of the actions alone, over real steps: cross-entropy of choices; of numbers the squared error, the mean
    over the numbers of an action.
    """

    def __init__(self, trajectories: Trajectories, spec: TrainSpec) -> None:
        self._trajectories, self._spec = trajectories, spec
        count = len(trajectories)
        if count < 2:
            raise DataError("of one episode none can be held out; record at least 2")
        order = torch.from_numpy(shuffled(np.arange(count), count, 0))
        kept_back = max(1, round(HELD_OUT * count))
        self._held_out, self._train = order[:kept_back].sort().values, order[kept_back:].sort().values
        self._left = trajectories.left()
        self._until = trajectories.lengths[self._train].cumsum(0)

    @property
    def data(self) -> dict[str, str]:
        return {"trajectories": self._trajectories.fingerprint}

    def require(self, spec: Spec) -> None:
        if not isinstance(spec, DecisionTransformer):
            raise ConfigError(f"this task is for a DecisionTransformer, not a {type(spec).__name__}")
        told, embedding = self._trajectories, spec.embedding
        require_spaces(embedding.observation, embedding.action, told.observation, told.action, "the trajectories")
        longest = int(told.lengths.max())
        if longest > embedding.horizon:
            what = f"an episode has {longest} steps and the model counts {embedding.horizon}"
            raise ConfigError(f"{what}: give it horizon={longest}")
        if self._spec.length != spec.context:
            what = f"rows are {self._spec.length} steps and the model looks back {spec.context}"
            raise ConfigError(f"{what}: leave out --length, and choose context=N")

    def batch(self, step: int) -> Batch:
        """returns, observations, actions, timesteps and mask, (B, length, ...) each."""
        rows = np.arange(self._spec.batch)
        drawn = torch.from_numpy(below(int(self._until[-1]), self._spec.seed, step, rows))
        turn = torch.searchsorted(self._until, drawn, right=True)
        episode = self._train[turn]
        length = self._trajectories.lengths[episode]
        return self._window(episode, drawn - (self._until[turn] - length))

    def size(self, batch: Batch) -> Size:
        steps = int(batch["mask"].sum())
        return Size(3 * steps, steps)

    def loss(self, model: Any, batch: Batch) -> Loss:
        out = decided(model, batch)
        mask = batch["mask"]
        nats = lost(out.actions[mask], batch["actions"][mask], self._spec.label_smoothing)
        return Loss(nats, out.losses, out.records)

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """On the held-out episodes, in windows one behind another: the loss of an action, in nats or squared error; the
        accuracy of choices; and how many steps there were. limit: look at about so many steps."""
        episode, start = self._every_window()
        total, right, steps = 0.0, 0, 0
        for at in range(0, len(episode), self._spec.batch):
            cut = slice(at, at + self._spec.batch)
            batch = to_device(self._window(episode[cut], start[cut]), device_of(model))
            mask = batch["mask"]
            with torch.no_grad():
                told, truth = decided(model, batch).actions[mask], batch["actions"][mask]
            total += float(lost(told, truth))
            right += int((told.argmax(-1) == truth).sum()) if self._of_choices else 0
            steps += len(truth)
            tick(min(1.0, (at + self._spec.batch) / len(episode)))
            if limit is not None and steps >= limit:
                break
        if self._of_choices:
            return {"nats_per_action": total / steps, "accuracy": right / steps, "steps": steps}
        return {"squared_error": total / steps, "steps": steps}

    @property
    def _of_choices(self) -> bool:
        return isinstance(self._trajectories.action, Choices)

    def _every_window(self) -> tuple[Tensor, Tensor]:
        """Of each window of the held-out episodes: the episode, and its first step there."""
        lengths = self._trajectories.lengths[self._held_out]
        counts = -(-lengths // self._spec.length)
        first = counts.cumsum(0) - counts
        number = torch.arange(int(counts.sum())) - first.repeat_interleave(counts)
        return self._held_out.repeat_interleave(counts), number * self._spec.length

    def _window(self, episode: Tensor, start: Tensor) -> Batch:
        """The steps of each episode from `start` on, with padding before them."""
        told, length = self._trajectories, self._spec.length
        real = (told.lengths[episode] - start).clamp(max=length)
        place = torch.arange(length) - (length - real)[:, None]
        mask = place >= 0
        timestep = start[:, None] + place.clamp(min=0)
        index = told.starts[episode][:, None] + timestep
        return {
            "returns": self._left[index],
            "observations": told.observations[index],
            "actions": told.actions[index],
            "timesteps": timestep,
            "mask": mask,
        }


def decided(model: Any, batch: Batch) -> Any:
    """What a model makes of a batch."""
    rows = [batch[name] for name in ("returns", "observations", "actions", "timesteps")]
    return model(*rows, mask=batch["mask"], remember=False)


def lost(told: Tensor, truth: Tensor, smoothing: float = 0.0) -> Tensor:
    """The loss of N actions, summed: told (N, count) logits and truth (N,), or numbers (N, W) both."""
    if truth.is_floating_point():
        return F.mse_loss(told.float(), truth, reduction="none").mean(-1).sum()
    return F.cross_entropy(told.float(), truth, reduction="sum", label_smoothing=smoothing)


def standardise(model: Any, trajectories: Trajectories) -> None:
    """Let a model read observed numbers in units of the trajectories: their mean, and how far they lie from it.

    The paper does so in Gym. Observations of choices are left alone.
    """
    reader = model.embedding.observations
    if isinstance(reader, NumbersReader):
        seen = trajectories.observations.double()
        reader.standardise(seen.mean(0), seen.std(0, correction=0).clamp(min=1e-6))


def require_spaces(observation: Space, action: Space, seen: Space, done: Space, where: str) -> None:
    """Raise ConfigError unless a model of the first two spaces can act where the other two are; where: its name."""
    for what, mine, theirs in (("observation", observation, seen), ("action", action, done)):
        if not _alike(mine, theirs):
            raise ConfigError(
                f"the model's {what}s are {mine!r}, and those of {where} are {theirs!r}: choose {what}=... so"
            )


def _alike(one: Space, other: Space) -> bool:
    if isinstance(one, Numbers) and isinstance(other, Numbers):
        return one.width == other.width
    return one == other
