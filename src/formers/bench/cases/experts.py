"""Experts: a Switch beside the dense model of the same active size, and beside the Switch layers of others."""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from formers.bench.race import race
from formers.bench.registry import BENCHES, Rival
from formers.bench.trial import Trial
from formers.call import Call
from formers.experts import Switch
from formers.family import make
from formers.feedforward import MLP
from formers.native.engine.lower import lower
from formers.native.engine.run import Engine
from formers.places import Places
from formers.report.rows import Row, ratio_at_least, value_at_most
from formers.spec import Site
from formers.train.device import autocast

CPU = torch.device("cpu")
PRECISIONS = ("fp32", "bf16")
HUGGING_FACE = Rival("transformers' SwitchTransformersSparseMLP", package="transformers")
ST_MOE = Rival("st-moe-pytorch's MoE, its two experts for each token", package="st-moe-pytorch")
DENSE = Rival("gpt2 of the same sizes")
WRITTEN = 32


@dataclass(frozen=True)
class Shape:
    """rows of `length` tokens, `dim` wide; experts of `hidden` units."""

    rows: int = 8
    length: int = 512
    dim: int = 256
    hidden: int = 1024
    experts: int = 8
    depth: int = 4
    heads: int = 8

    def sizes(self) -> dict[str, int]:
        """Arguments of a member."""
        sizes = {"vocab": 256, "dim": self.dim, "depth": self.depth, "heads": self.heads}
        return sizes | {"hidden": self.hidden, "length": self.length}


TINY = Shape(rows=2, length=24, dim=16, hidden=32, experts=2, depth=2, heads=2)


def shape_of(trial: Trial) -> Shape:
    return TINY if trial.quick else Shape()


@BENCHES.case(
    "experts",
    "a training step of Switch with 8 experts (dim 256, 4 blocks, 8 rows of 512) beside the dense model of its active size",
    unit="ms",
    better="lower",
    rival=DENSE,
)
def training_step(trial: Trial) -> Iterator[Row]:
    """Forward, backward and AdamW."""
    shape = shape_of(trial)
    turns = {
        "ours": training(make("switch", **shape.sizes(), experts=shape.experts, dropout=0.0), shape),
        "dense": training(make("gpt2", **shape.sizes(), dropout=0.0), shape),
    }
    yield from beside_dense(trial, turns, "a training step")


@BENCHES.case(
    "experts",
    "decoding (dim 256, 4 blocks): 8 experts, of which the chosen one is read, beside the dense model",
    unit="ms",
    better="lower",
    rival=DENSE,
)
def decoding_step(trial: Trial) -> Iterator[Row]:
    """One stream: a step of PyTorch behind 16 tokens, and tokens that the native engine writes."""
    shape = shape_of(trial)
    turns = {
        "ours": decoding(make("switch", **shape.sizes(), experts=shape.experts)),
        "dense": decoding(make("gpt2", **shape.sizes())),
    }
    yield from beside_dense(trial, turns, "a step of decoding")
    turns = {
        "ours": writing(make("switch", **shape.sizes(), experts=shape.experts), shape),
        "dense": writing(make("gpt2", **shape.sizes()), shape),
    }
    yield from beside_dense(trial, turns, f"{WRITTEN} tokens by the native engine")


def beside_dense(trial: Trial, turns: dict[str, Callable[[], None]], name: str) -> Iterator[Row]:
    warmup, rounds = (1, 1) if trial.quick else (3, 15)
    with trial.progress(trial.case.title, (warmup + rounds) * len(turns)) as tick:
        seconds = race(turns, warmup=warmup, rounds=rounds, tick=tick)
    yield trial.row(name, 1e3 * seconds["ours"], 1e3 * seconds["dense"])
    times = seconds["ours"] / seconds["dense"]
    yield trial.row(f"{name}, over the dense model's", times, unit="times", rival=None, goal=value_at_most(1.4))


@BENCHES.case(
    "experts",
    "a Switch layer (dim 256, 8 experts of 1,024 units, 8 rows of 512), forward and backward, against transformers",
    unit="ms",
    better="lower",
    rival=HUGGING_FACE,
)
def beside_transformers(trial: Trial) -> Iterator[Row]:
    """Both in training, with jitter and the same capacity for each row."""
    yield from layers(trial, hugging_face)


@BENCHES.case(
    "experts",
    "a Switch layer (dim 256, 8 experts of 1,024 units, 8 rows of 512), forward and backward, against st-moe-pytorch",
    unit="ms",
    better="lower",
    rival=ST_MOE,
)
def beside_st_moe(trial: Trial) -> Iterator[Row]:
    """Theirs sends a token to two experts at least, in as many seats as ours; the experts are alike."""
    yield from layers(trial, st_moe)


def layers(trial: Trial, rival: Callable[[Shape], nn.Module]) -> Iterator[Row]:
    shape = shape_of(trial)
    for precision in PRECISIONS:
        mine = lesson(ours(shape), shape, precision)
        duel = trial.duel(mine, partial(rival_lesson, rival, shape, precision), rounds=9)
        yield trial.row(f"forward and backward, {precision}", *duel.milliseconds(), goal=ratio_at_least(2))


def rival_lesson(rival: Callable[[Shape], nn.Module], shape: Shape, precision: str) -> Callable[[], None]:
    return lesson(rival(shape), shape, precision)


class Alone(nn.Module):
    """Our layer, called with nothing but its input."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        expert = MLP(shape.hidden, "relu", bias=False)
        self.layer = Switch(expert, shape.experts).build(Site(shape.dim))
        self.places = Places.run(0, shape.length)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out = self.layer(x, Call(self.places, remember=False))
        return out.y, out.losses["load_balance"]


def ours(shape: Shape) -> nn.Module:
    return Alone(shape)


def hugging_face(shape: Shape) -> nn.Module:
    switch: Any = importlib.import_module("transformers.models.switch_transformers.modeling_switch_transformers")
    sizes = {"d_model": shape.dim, "d_ff": shape.hidden, "num_experts": shape.experts, "dropout_rate": 0.0}
    room = -(-5 * shape.length // (4 * shape.experts))
    layer: nn.Module = switch.SwitchTransformersSparseMLP(
        switch.SwitchTransformersConfig(**sizes, expert_capacity=room)
    )
    return layer


def st_moe(shape: Shape) -> nn.Module:
    package: Any = importlib.import_module("st_moe_pytorch")
    experts = [MLP(shape.hidden, "relu", bias=False).build(Site(shape.dim)) for _ in range(shape.experts)]
    plain = nn.ModuleList(nn.Sequential(one.up, nn.ReLU(), one.down) for one in experts)  # type: ignore[arg-type]
    layer: nn.Module = package.MoE(dim=shape.dim, num_experts=shape.experts, gating_top_n=2, experts=plain)
    return layer


def lesson(layer: nn.Module, shape: Shape, precision: str) -> Callable[[], None]:
    """A forward and backward pass; what a layer gives beside its output, such as a loss, is learned from too."""
    layer.train()
    x = torch.randn(shape.rows, shape.length, shape.dim).requires_grad_()

    def turn() -> None:
        layer.zero_grad()
        x.grad = None
        with autocast(CPU, precision):
            given = layer(1.0 * x)  # a tensor of the pass: theirs writes into what it is given
        y, *losses = given if isinstance(given, tuple) else (given,)
        total = y.float().square().mean()
        for loss in losses[:1]:
            total = total + loss
        total.backward()

    return turn


def training(spec: Any, shape: Shape) -> Callable[[], None]:
    """An update of a model on random tokens."""
    model = spec.build().train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    tokens = torch.randint(shape.sizes()["vocab"], (shape.rows, shape.length + 1))

    def turn() -> None:
        out = model(tokens[:, :-1], remember=False)
        loss = nn.functional.cross_entropy(out.logits.flatten(0, 1), tokens[:, 1:].flatten())
        for named in out.losses.values():
            loss = loss + named
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return turn


@torch.inference_mode()
def decoding(spec: Any) -> Callable[[], None]:
    """One more token of a stream, always behind the same 16."""
    model = spec.build().eval()
    state = model(torch.zeros(1, 16, dtype=torch.int64)).state
    token = torch.ones(1, 1, dtype=torch.int64)

    @torch.inference_mode()
    def turn() -> None:
        model.step(token, state)

    return turn


def writing(spec: Any, shape: Shape) -> Callable[[], None]:
    """Tokens behind an empty stream, in C++."""
    session = Engine(lower(spec.build().eval())).session()

    def turn() -> None:
        session.reset(0)
        session.write([0], count=min(WRITTEN, shape.length))

    return turn
