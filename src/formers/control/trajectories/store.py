"""Trajectories as a value, and as a folder: steps.safetensors, which is mapped when opened, and trajectories.json."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from formers.control.spaces import Choices, Space
from formers.data.atomic import as_json, read_json, replacing
from formers.errors import ConfigError, DataError
from formers.spec import from_json, to_json
from formers.train.digest import digest_of_file

STEPS, ABOUT, FORMAT = "steps.safetensors", "trajectories.json", 1
TENSORS = ("observations", "actions", "rewards", "ends", "terminated", "policy")


@dataclass(frozen=True)
class Trajectories:
    """E episodes of N steps in all, one behind another.

    observations (N, W) float32, or (N,) int64 of choices: what was seen before each step; actions, likewise: what was done;
    rewards (N,) float32: what that earned. ends (E,) int64: the number of the step behind the last one of each episode.
    terminated (E,) bool: it came to an end by itself, and was not cut. policy (E,) int64: who acted, of `policies`.
    fingerprint: of the file that they were read from.
    """

    environment: str | None
    observation: Space
    action: Space
    observations: Tensor
    actions: Tensor
    rewards: Tensor
    ends: Tensor
    terminated: Tensor
    policy: Tensor
    policies: tuple[str, ...] = ("unknown",)
    fingerprint: str = ""

    def __len__(self) -> int:
        """How many episodes there are."""
        return len(self.ends)

    @property
    def starts(self) -> Tensor:
        """(E,): the number of the first step of each episode."""
        return torch.cat([self.ends.new_zeros(1), self.ends[:-1]])

    @property
    def lengths(self) -> Tensor:
        """(E,): the steps of each episode."""
        return self.ends - self.starts

    @property
    def returns(self) -> Tensor:
        """(E,) float32: what each episode earned."""
        return self.left()[self.starts]

    def left(self) -> Tensor:
        """(N,) float32: what was earned from each step to the end of its episode, the step's own reward included."""
        earned = self.rewards.double().cumsum(0)
        before = earned - self.rewards.double()
        return (earned[self.ends - 1].repeat_interleave(self.lengths) - before).float()

    def require(self, where: str) -> None:
        """Raise DataError unless everything fits together; where: what to call it in the message."""
        if not len(self.ends):
            raise DataError(f"{where} holds no episode: record some, by `formers control record`")
        count = int(self.ends[-1])
        for name, space in (("observations", self.observation), ("actions", self.action)):
            rows = getattr(self, name)
            if rows.shape != (count, *space.shape) or rows.dtype != space.dtype:
                told = f"{rows.dtype} {tuple(rows.shape)}"
                raise DataError(f"{where}: {name} of {count} steps in {space!r} cannot be {told}; record them again")
            if isinstance(space, Choices) and not 0 <= int(rows.min()) <= int(rows.max()) < space.count:
                raise DataError(f"{where}: {name} are not all among {space.count} choices; record them again")
        of_episodes = {"terminated": self.terminated, "policy": self.policy}
        wrong = [name for name, rows in of_episodes.items() if rows.shape != self.ends.shape]
        wrong += ["rewards"] if self.rewards.shape != (count,) else []
        wrong += ["ends"] if int(self.lengths.min()) < 1 else []
        wrong += ["policy"] if not 0 <= int(self.policy.min()) <= int(self.policy.max()) < len(self.policies) else []
        wrong += [
            name for name in ("rewards", "observations", "actions") if not bool(getattr(self, name).isfinite().all())
        ]
        if wrong:
            raise DataError(f"{where}: {', '.join(wrong)} cannot be right for {count} steps; record them again")


def write_trajectories(folder: str | Path, trajectories: Trajectories) -> Trajectories:
    """Write them into a folder, whole or not at all, and open them there. Raises DataError if it cannot."""
    folder = Path(folder)
    trajectories.require(str(folder))
    tensors = {name: getattr(trajectories, name).contiguous() for name in TENSORS}
    about = {
        "format": FORMAT,
        "environment": trajectories.environment,
        "observation": json.loads(to_json(trajectories.observation)),
        "action": json.loads(to_json(trajectories.action)),
        "policies": list(trajectories.policies),
        "episodes": len(trajectories),
        "steps": len(trajectories.rewards),
    }
    with replacing(folder / STEPS, folder / ABOUT) as (steps, note):
        steps.write(save(tensors))
        note.write(as_json(about))
    return open_trajectories(folder)


def open_trajectories(folder: str | Path) -> Trajectories:
    """Open what `write_trajectories` wrote; nothing is read before it is asked for, but to see that it is whole.

    Raises DataError where it is missing or damaged, or was written by a later version.
    """
    folder = Path(folder)
    if not (folder / ABOUT).is_file():
        raise DataError(f"{folder} holds no trajectories: record some, by `formers control record --out {folder}`")
    about = read_json(folder / ABOUT)
    if about.get("format") != FORMAT:
        raise DataError(f"{folder / ABOUT} is of format {about.get('format')}, and {FORMAT} can be read here")
    try:
        with safe_open(str(folder / STEPS), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in TENSORS}
        seen, done = (from_json(json.dumps(about[name]), name) for name in ("observation", "action"))
        if not isinstance(seen, Space) or not isinstance(done, Space):
            raise ConfigError(f"{seen!r} and {done!r} are no spaces")
        name, policies = about["environment"], tuple(about["policies"])
        digest = digest_of_file(folder / STEPS)
    except (SafetensorError, OSError, KeyError, TypeError, ConfigError) as error:
        raise DataError(f"{folder} is damaged: {error}; record it again") from error
    found = Trajectories(name, seen, done, policies=policies, fingerprint=digest, **tensors)
    found.require(str(folder))
    return found
