"""Performer and random feature attention: how near features come to softmax, and what models with them learn."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from formers.attention import Attention
from formers.attention.kernel import Hyperbolic, KernelAttention, Positive, RandomFourier, ReLUKernel, Trigonometric
from formers.attention.kernel.features import SoftmaxFeatures, SoftmaxLayer
from formers.attention.kernel.whole import read, sum_over
from formers.bench.registry import CLAIMS
from formers.bench.study import NEEDS, Study
from formers.bench.trial import Trial
from formers.block import Block, stack
from formers.call import Call, Layer
from formers.embedding import Embedding
from formers.feedforward import MLP
from formers.model import Decoder
from formers.places import Places
from formers.position import Sinusoidal
from formers.report.rows import Row, ratio_at_least, value_at_least, value_at_most
from formers.spec import Site

TRIGONOMETRIC, INDEPENDENT, ORTHOGONAL, HYPERBOLIC = "trigonometric", "positive", "orthogonal positive", "hyperbolic"
SOFTMAX = "softmax"


@dataclass(frozen=True)
class Estimates:
    """Attention over `length` tokens in a head `width` wide, estimated by so many directions, `seeds` times."""

    length: int = 256
    width: int = 16
    seeds: int = 20

    def error(self, spec: SoftmaxFeatures, loudness: float, directions: int) -> float:
        """Mean squared error of the output, the median over seeds, for queries and keys N(0, loudness^2)."""
        site = Site(self.width, heads=1, head_dim=self.width)
        found = []
        for seed in range(self.seeds):
            torch.manual_seed(seed)
            layer = spec.replace(features=directions * spec.per_direction).build(site).double().eval()
            q, k, v = torch.randn(3, 1, 1, self.length, self.width, dtype=torch.float64)
            found.append(self._error(layer, loudness * q, loudness * k, v))
        return median(found)

    def _error(self, layer: SoftmaxLayer, q: Tensor, k: Tensor, v: Tensor) -> float:
        directions = layer.directions(Call(Places.run(0, self.length)))
        with torch.no_grad():
            estimated = read(layer, directions, q, sum_over(layer, directions, k, v, None))
        return float((estimated - F.scaled_dot_product_attention(q, k, v)).square().mean())


MAPS: Mapping[str, SoftmaxFeatures] = {
    TRIGONOMETRIC: Trigonometric(orthogonal=False),
    INDEPENDENT: Positive(orthogonal=False),
    ORTHOGONAL: Positive(),
    HYPERBOLIC: Hyperbolic(),
}


@CLAIMS.case(
    "performer",
    "features of the softmax kernel, arXiv:2009.14794: 256 tokens, a head of 16, queries and keys N(0, s^2), 20 seeds",
    unit="mean squared error",
    better="lower",
)
def errors(trial: Trial) -> Iterator[Row]:
    """Of the output of attention, for each map, loudness and number of directions."""
    estimates = Estimates(length=16, seeds=2) if trial.quick else Estimates()
    for loudness in (0.5, 1.0, 1.5):
        few = {name: estimates.error(spec, loudness, 64) for name, spec in MAPS.items()}
        for name, error in few.items():
            rival = None if name == TRIGONOMETRIC else TRIGONOMETRIC
            goal = ratio_at_least(100) if rival and loudness >= 1 else None
            value = few[rival] if rival else None
            yield trial.row(f"s = {loudness}, 64 directions, {name}", error, value, rival=rival, goal=goal)
        for name in (ORTHOGONAL, INDEPENDENT) if loudness <= 1 else ():
            error = estimates.error(MAPS[name], loudness, 1024)
            told = f"s = {loudness}, 1,024 directions, {name}"
            yield trial.row(told, error, few[name], rival="its 64 directions", goal=ratio_at_least(1))
        if loudness <= 1:
            told = f"s = {loudness}, 64 directions, orthogonal over independent"
            apart = few[ORTHOGONAL] / few[INDEPENDENT]
            yield trial.row(told, apart, unit="times", goal=value_at_most(1.05))


HEADS = 4
STUDY = Study(dim=64, depth=2, heads=HEADS, hidden=256, length=64, batch=32, steps=1500, seeds=1)
TINY = replace(STUDY, dim=16, depth=1, hidden=32, length=16, batch=2, steps=2, most=4096)
TASK = "2 layers, dim 64, 4 heads of 64 directions, 1,500 steps of 2,048 bytes each"


@CLAIMS.case(
    "performer",
    TASK + "; softmax beside positive features, drawn again every 500 steps or never, and the ReLU kernel",
    unit="bits/byte",
    better="lower",
    needs=NEEDS,
)
def performer(trial: Trial) -> Iterator[Row]:
    """Language models that differ in attention alone."""
    features = size_of(trial).dim
    kinds: dict[str, Layer] = {
        "positive features": KernelAttention(HEADS, features=Positive(features, redraw=500)),
        "positive features, never drawn again": KernelAttention(HEADS, features=Positive(features, redraw=None)),
        "ReLU kernel": KernelAttention(HEADS, features=ReLUKernel(features, redraw=500)),
    }
    goals = {"positive features": 0.15}
    yield from learned(trial, kinds, goals)


@CLAIMS.case(
    "rfa",
    TASK + "; softmax, RFA and RFA-Gate, arXiv:2103.02143",
    unit="bits/byte",
    better="lower",
    needs=NEEDS,
)
def rfa(trial: Trial) -> Iterator[Row]:
    """What a gate brings, and how far it is from softmax."""
    features = RandomFourier(2 * size_of(trial).dim)
    kinds: dict[str, Layer] = {
        "RFA": KernelAttention(HEADS, features=features),
        "RFA-Gate": KernelAttention(HEADS, features=features, gate=True),
    }
    *rows, gated = learned(trial, kinds, {"RFA-Gate": 0.1})
    yield from (*rows, gated)
    plain = rows[-1].value
    assert plain is not None
    assert gated.value is not None
    told = "what the gate takes off the loss"
    yield trial.row(told, plain - gated.value, better="higher", goal=value_at_least(0.05))


def learned(trial: Trial, kinds: Mapping[str, Layer], goals: Mapping[str, float]) -> Iterator[Row]:
    """The loss of a model with softmax attention and of one with each kind; goals: how far above softmax it may be."""
    study = size_of(trial)
    with study.text(trial) as text, trial.progress("learning", (1 + len(kinds)) * study.steps) as tick:
        found: dict[str, float] = {}
        for name, attention in ({SOFTMAX: Attention(HEADS)} | dict(kinds)).items():
            spec = model_of(study, attention, text.tokenizer.vocab)
            found[name] = loss = study.learned(spec, text, 0, name, tick)
            if name == SOFTMAX:
                yield trial.row(name, loss)
                continue
            goal = value_at_most(found[SOFTMAX] + goals[name]) if name in goals else None
            yield trial.row(name, loss, found[SOFTMAX], rival=SOFTMAX, goal=goal)


def size_of(trial: Trial) -> Study:
    """How large the models are, and how long they learn."""
    return TINY if trial.quick else STUDY


def model_of(study: Study, attention: Layer, vocab: int) -> Decoder:
    """A language model with that attention in every block."""
    blocks = stack(Block((attention, MLP(study.hidden))), times=study.depth)
    return Decoder("pupil", vocab, study.dim, blocks, Embedding(Sinusoidal()))
