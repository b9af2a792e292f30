"""GTrXL: gates that begin closed let a deep stack learn at rates where others fail, and an agent needs what it remembers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from formers.attention import Attention
from formers.bench.registry import CLAIMS, Rival
from formers.bench.trial import Trial
from formers.block import Block, stack
from formers.claim.cue_task import Cue
from formers.claim.pupil import AsTorch
from formers.control.agent import PPO, Learner, Rollouts, act, gtrxl_agent
from formers.control.environment import Environment
from formers.feedforward import MLP
from formers.head import Untied
from formers.model import Decoder
from formers.norm import LayerNorm
from formers.position import TransformerXL
from formers.report.rows import Row, value_at_least
from formers.residual import PostNorm, PreNorm, Residual
from formers.residual.gated import Gated, GRUGate
from formers.train import AdamW, Constant, TrainSpec
from formers.train.update import Updater

SOLVED = 0.95  # of the texts
POST, PRE, UNGATED, GATED, OPEN = "post-norm", "pre-norm", "TrXL-I", "GTrXL, b_g from 2", "GTrXL, b_g from 0"
RULES: dict[str, Residual] = {
    POST: PostNorm(),
    PRE: PreNorm(),
    UNGATED: Gated(gate=None),
    GATED: Gated(gate=GRUGate(2.0)),
    OPEN: Gated(gate=GRUGate(0.0)),
}


@dataclass(frozen=True)
class Setting:
    """The models and what they learn, without a warm-up and without clipping, at each of the rates."""

    task: Cue = Cue()
    depth: int = 12
    dim: int = 32
    steps: int = 250
    rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)

    def spec(self, rule: Residual) -> Decoder:
        """A decoder whose sublayers join the stream by that rule; a last norm where the rule norms what sublayers read."""
        attention = Attention(4, position=TransformerXL())
        blocks = stack(Block((attention, MLP(4 * self.dim, "relu")), rule), times=self.depth)
        norm = LayerNorm() if isinstance(rule, PreNorm) else None
        return Decoder("recaller", self.task.vocab, self.dim, blocks, norm=norm, head=Untied(), init=AsTorch())

    def accuracy(self, rule: Residual, rate: float, tick: Callable[[], object]) -> float:
        """The share of texts whose cue is told, after learning at that rate."""
        task = self.task
        optimizer = AdamW(rate, (0.9, 0.999), weight_decay=0.01)
        training = TrainSpec(self.steps, task.rows, task.length, optimizer=optimizer, schedule=Constant(), clip=None)
        torch.manual_seed(training.seed)
        model: nn.Module = self.spec(rule).build().train()
        update = Updater(model, task, training, optimizer.build(model), torch.device("cpu"))
        for step in range(1, self.steps + 1):
            update(step)
            tick()
        return task.evaluate(model.eval())["accuracy"]


TINY = Setting(Cue(length=6, rows=4, evaluated=2), depth=2, dim=8, steps=2)


@CLAIMS.case(
    "gtrxl",
    "the first of 24 tokens told at the last one, 12 layers of width 32, 250 steps without warm-up or clipping at rates of "
    "0.003, 0.01 and 0.03 (arXiv:1910.06764)",
    unit="rates solved",
)
def gtrxl(trial: Trial) -> Iterator[Row]:
    """Learns at every rate with every rule of joining the stream."""
    setting = TINY if trial.quick else Setting()
    solved = {}
    with trial.progress("", setting.steps * len(setting.rates) * len(RULES)) as tick:
        for name, rule in RULES.items():
            tick(0, name)
            found = [setting.accuracy(rule, rate, tick) for rate in setting.rates]
            solved[name] = sum(accuracy >= SOLVED for accuracy in found)
            note = "accuracy " + ", ".join(f"{accuracy:.2f}" for accuracy in found)
            yield trial.row(name, solved[name], note=note)
    for other, more in ((UNGATED, 0), (POST, 1), (OPEN, 1)):
        yield trial.row(f"{GATED}, beyond {other}", solved[GATED] - solved[other], goal=value_at_least(more))


@dataclass(frozen=True)
class World:
    """An environment whose observations are not enough, and how long agents learn in it."""

    name: str = "CartPole-v1"
    hide: tuple[int, ...] = (1, 3)
    ppo: PPO = PPO(80_000)
    episodes: int = 20

    def earned(self, sizes: dict[str, Any], tick: Callable[[], object]) -> float:
        """The mean return of episodes that an agent of those sizes acts after it has learned."""
        ppo = self.ppo
        environments = [Environment(self.name, self.hide) for _ in range(ppo.environments)]
        torch.manual_seed(ppo.seed)
        model = gtrxl_agent(environments[0].observation, environments[0].action, **sizes).build()
        learner = Learner(model, Rollouts(model, environments), ppo)
        for number in range(ppo.updates):
            learner.update(number)
            tick()
        found = act(model, environments[0], self.episodes, seed=ppo.seed + 1)
        return sum(one.returned for one in found) / len(found)


SHORT = World(ppo=PPO(8, environments=2, length=4), episodes=1)
SIZES: dict[str, Any] = {"dim": 8, "depth": 1, "heads": 2, "hidden": 8}
BLIND: dict[str, Any] = {"segment": 1, "memory": 0}


@CLAIMS.case(
    "gtrxl",
    "an agent in CartPole-v1 with both velocities hidden, after 80,000 steps of PPO (20 episodes)",
    unit="return",
    rival=Rival("the same network without a memory", "gymnasium", "control"),
)
def agent(trial: Trial) -> Iterator[Row]:
    """Learns with GTrXL's memory, and with attention that sees the present step alone."""
    if trial.case.rival is not None and not trial.case.rival.installed:
        yield trial.row("GTrXL", None)
        return
    world, sizes = (SHORT, SIZES) if trial.quick else (World(), {})
    with trial.progress("with memory", 2 * world.ppo.updates) as tick:
        own = world.earned(sizes, tick)
        tick(0, "without")
        blind = world.earned(sizes | BLIND, tick)
    yield trial.row("GTrXL", own, blind, goal=value_at_least(300.0))
