"""Switch: experts learn what a dense layer that does as much work has no room for, and a loss keeps them all busy."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from formers.bench.registry import CLAIMS
from formers.bench.trial import Trial
from formers.call import Layer
from formers.claim.language_task import TINY, Languages, Polyglot
from formers.experts import Switch
from formers.feedforward import MLP
from formers.report.rows import Row, ratio_at_least, value_at_least

DENSE, WIDE = "dense, 64 units", "dense, 128 units"
SWITCH, UNBALANCED = "Switch, 8 experts of 64 units", "Switch without its balance loss"
KINDS: dict[str, Layer] = {
    DENSE: MLP(64),
    SWITCH: Switch(MLP(64), 8),
    UNBALANCED: Switch(MLP(64), 8, balance=0.0),
    WIDE: MLP(128),
}


class Loads(NamedTuple):
    """least and most: the shares of the choices that fall on the least and on the most busy expert of a layer, the mean
    over layers; dropped: the share that finds no seat at the capacity of training."""

    least: float
    most: float
    dropped: float

    @property
    def told(self) -> str:
        return f"{self.least:.3f} to {self.most:.3f}"

    @classmethod
    @torch.no_grad()
    def of(cls, model: nn.Module, task: Languages) -> "Loads":
        outs = [model.train()(batch["inputs"], remember=False).records for batch in task.held_out()]
        model.eval()
        loads = sum(torch.stack(out["load"]).double() for out in outs)
        assert isinstance(loads, Tensor)
        shares = loads / loads.sum(-1, keepdim=True)
        dropped = sum(float(torch.stack(out["dropped"]).sum()) for out in outs) / float(loads.sum())
        return cls(float(shares.amin(-1).mean()), float(shares.amax(-1).mean()), dropped)


@CLAIMS.case(
    "switch",
    "one expert of 8 for each token (arXiv:2101.03961), 16 Markov languages of 24 symbols, 2 layers, dim 32, 2,500 steps",
    unit="nats",
    better="lower",
)
def switch(trial: Trial) -> Iterator[Row]:
    """Equal steps on the same rows; held-out nats of a token, and how the experts share the work."""
    pupil = TINY if trial.quick else Polyglot()
    models = dict(zip(KINDS, pupil.learn_each(trial, KINDS), strict=True))
    nats = {name: pupil.task.evaluate(model)["nats"] for name, model in models.items()}
    floor = pupil.task.floor()
    for name, value in nats.items():
        yield trial.row(name, value, rival=None, note=f"who knows the languages needs {floor:.3f}")
    ahead = nats[DENSE] - nats[SWITCH]
    goal = value_at_least(0.05)
    yield trial.row("the dense layer's nats less those of Switch", ahead, rival=None, better="higher", goal=goal)
    with_loss, without = (Loads.of(models[name], pupil.task) for name in (SWITCH, UNBALANCED))
    yield trial.row(
        "the least busy expert's load over the most busy one's",
        with_loss.least / with_loss.most,
        without.least / without.most,
        unit="times",
        better="higher",
        rival=UNBALANCED,
        goal=ratio_at_least(1),
        note=f"loads of {with_loss.told}, without the loss {without.told}",
    )
    yield trial.row(
        "choices that find no seat at a capacity of 1.25",
        with_loss.dropped,
        without.dropped,
        unit="share",
        rival=UNBALANCED,
    )
