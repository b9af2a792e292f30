"""Proximal policy optimisation of an agent with memory: Schulman et al. 2017, arXiv:1707.06347."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from formers.control.agent.model import AgentLayer
from formers.control.agent.rollout import Experience, Rollouts, advantages
from formers.spec.check import check
from formers.spec.core import Site, Spec
from formers.state import select
from formers.train.device import seed_of_step
from formers.train.optimize import AdamW


class PPO(Spec):
    """On-policy training as a value; with the agent's spec and its environment it determines every number of the run.

    The paper of GTrXL trains by V-MPO, an on-policy method too; PPO is simpler and better known; the two were not compared here.

    steps: of all environments together. environments: how many run side by side. length: steps of each between updates.
    epochs: passes over them, in `pieces` of some environments each. optimizer: its learning rate falls in a straight line
    to 0. discount: what a reward is worth one step later; trace: what the advantage takes on from step to step. clip: how
    far from 1 the ratio of an action's probabilities is rewarded. entropy, value: weights of those losses. norm: largest
    norm of the gradient. checkpoint_every: updates between checkpoints, at which all environments begin anew, so that a run
    that is resumed is the run that was never stopped: `length` times as many steps should hold an episode or more. keep:
    how many checkpoints stay on the disk.
    """

    steps: int
    environments: int = 16
    length: int = 32
    epochs: int = 4
    pieces: int = 2
    optimizer: AdamW = AdamW(1e-3, (0.9, 0.999), 1e-5, 0.0)
    discount: float = 0.99
    trace: float = 0.95
    clip: float = 0.2
    entropy: float = 0.01
    value: float = 0.5
    norm: float = 0.5
    seed: int = 0
    checkpoint_every: int = 64
    keep: int = 2

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        for name in ("steps", "environments", "length", "epochs", "pieces", "checkpoint_every", "keep"):
            if getattr(self, name) < 1:
                yield f"{name}={getattr(self, name)} must be at least 1", f"{name}=1"
        if self.pieces > self.environments > 0:
            what = f"{self.environments} environments do not make {self.pieces} pieces"
            yield what, f"pieces={self.environments}"
        for name in ("discount", "trace"):
            if not 0 <= getattr(self, name) <= 1:
                yield f"{name}={getattr(self, name)} is a share of what comes later", f"{name}=0.95"
        for name in ("clip", "norm"):
            if getattr(self, name) <= 0:
                yield f"{name}={getattr(self, name)} would let nothing be learned", f"{name}=0.5"
        for name in ("entropy", "value"):
            if getattr(self, name) < 0:
                yield f"{name}={getattr(self, name)} would reward what is to be avoided", f"{name}=0.01"
        if not 0 <= self.seed < 2**32:
            yield f"seed={self.seed} must lie in [0, 2^32)", "seed=0"

    @property
    def updates(self) -> int:
        """How many batches of experience there are."""
        return max(1, math.ceil(self.steps / (self.environments * self.length)))

    def check(self) -> None:
        """Raise one ConfigError that lists every problem, or return."""
        check(self, Site(dim=0), "ppo")


class Learned(NamedTuple):
    """Means over an update: the loss, its parts, and the share of actions whose ratio was clipped."""

    loss: float
    policy: float
    value: float
    entropy: float
    clipped: float


class Learner:
    """An agent that learns from what it experiences; one call of `update` after another."""

    def __init__(self, model: AgentLayer, rollouts: Rollouts, spec: PPO) -> None:
        self.model, self.rollouts, self.spec = model, rollouts, spec
        self.optimizer = spec.optimizer.build(model)

    def update(self, number: int) -> Learned:
        """Collect a batch of experience and learn from it; number: of the update, from 0, which all chance follows from."""
        spec = self.spec
        chance = torch.Generator().manual_seed(seed_of_step(spec.seed, number))
        if number % spec.checkpoint_every == 0:
            self.rollouts.restart(chance)
        experience = self.rollouts.collect(spec.length, spec.discount, chance)
        ahead = advantages(experience, spec.discount, spec.trace)
        earned = ahead + experience.values
        self.model.measure(earned)
        ahead = (ahead - ahead.mean()) / (ahead.std() + 1e-8)
        for group in self.optimizer.param_groups:
            group["lr"] = spec.optimizer.learning_rate * (1 - number / spec.updates)
        self.model.train()
        told = []
        for _ in range(spec.epochs):
            rows = torch.randperm(spec.environments, generator=chance)
            told += [self._descend(experience, ahead, earned, piece) for piece in rows.tensor_split(spec.pieces)]
        self.model.observations.measure(experience.observations)
        return Learned(*torch.tensor(told).mean(0).tolist())

    def _descend(self, experience: Experience, ahead: Tensor, earned: Tensor, rows: Tensor) -> list[float]:
        """One step down the loss of some environments."""
        spec = self.spec
        state = None if experience.state is None else select(experience.state, rows)
        out = self.model(experience.observations[rows], experience.begins[rows], state, remember=False)
        ratio = (out.policy.log_prob(experience.actions[rows]) - experience.log_probs[rows]).exp()
        near = ratio.clamp(1 - spec.clip, 1 + spec.clip)
        policy = -torch.minimum(ratio * ahead[rows], near * ahead[rows]).mean()
        value = ((out.value - earned[rows]) / self.model.unit).square().mean() / 2
        entropy = out.policy.entropy().mean()
        loss = policy + spec.value * value - spec.entropy * entropy + sum(out.losses.values())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), spec.norm)
        self.optimizer.step()
        parts = (loss, policy, value, entropy, (ratio != near).float().mean())
        return [float(part.detach()) for part in parts]
