"""Sparse Transformer: two patterns that see √n keys each do what full attention does, in any of three ways, and deep."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from formers.attention import Attention, Causal, Pattern, Window
from formers.bench.registry import CLAIMS, Rival
from formers.bench.trial import Trial
from formers.block import StackLayer
from formers.call import Call
from formers.claim.cases.reversible import Kept
from formers.claim.pupil import AsTorch
from formers.claim.row_task import TINY, RowLearner
from formers.data.chance import generator
from formers.family.registry import make
from formers.family.sparse import Kind, Use, factorised
from formers.init import Init
from formers.model import Decoder
from formers.places import Places, keys, queries
from formers.report.rows import Row, value_at_least, value_at_most
from formers.spec.core import Site

HEADS, SIDE, CELLS = 4, 12, 2
SOLVED, CHANCE = value_at_most(0.1), value_at_least(1.9)  # of 2 bits
WAYS: dict[str, tuple[Kind, Use]] = {
    "strided, layer by layer": ("strided", "alternate"),
    "strided, merged": ("strided", "merged"),
    "strided, by heads": ("strided", "heads"),
    "fixed, layer by layer": ("fixed", "alternate"),
    "fixed, merged": ("fixed", "merged"),
    "fixed, by heads": ("fixed", "heads"),
}


@CLAIMS.case(
    "sparse_transformer",
    "the patterns of arXiv:1904.10509 on images of 12 x 12 in 4 colours, whose lower half repeats the upper one, plus 1 "
    "(stride 12, 2 layers, dim 48)",
    unit="bits",
    better="lower",
)
def patterns(trial: Trial) -> Iterator[Row]:
    """Learns with each way to use the two patterns, with the near one alone, and with all pairs.

    Inputs are shifted: what is told at a place is the pixel behind the one that is read there. The pixel above it stands
    `stride - 1` back, and so in the window and in no column of the query; 6 rows up, it is two steps away.
    """
    learner = TINY if trial.quick else RowLearner(steps=1_800, rate=1e-3)
    ways = {name: factorised(*way, HEADS, SIDE, CELLS) for name, way in WAYS.items()}
    ways |= {"the last 12 pixels alone": (Causal() & Window(SIDE),), "all pixels": (Causal(),)}
    layers = {name: tuple(Attention(HEADS, pattern=seen) for seen in way) for name, way in ways.items()}
    for (name, way), model in zip(ways.items(), learner.learn_each(trial, layers), strict=True):
        met, reached = share_reached(way)
        goal = CHANCE if name.endswith("alone") else value_at_most(1.0) if name.startswith("fixed") else SOLVED
        note = f"a layer sees {met:.0%} of the pixels up to the query's own, two layers {reached:.0%}"
        yield trial.row(name, learner.bits(model), goal=goal, note=note)
    for name in ("strided", "fixed"):
        reached = share_reached(ways[f"{name}, layer by layer"])[1]
        told = f"{name}: pixels up to its own that reach a query in two layers"
        yield trial.row(told, reached, unit="of all", better="higher", goal=value_at_least(1.0))


def share_reached(way: tuple[Pattern, ...]) -> tuple[float, float]:
    """Of all pairs under the lower triangle, the share that a head meets (the mean over heads and layers), and that two
    layers, in turn, carry over by whichever of their heads."""
    at = Places.run(0, SIDE**2)
    alone = torch.zeros(1, 1, 1)
    masks = [[layer.at_head(n).visible(queries(at), keys(at), alone).squeeze() for n in range(HEADS)] for layer in way]
    layers = [torch.stack(heads).any(0).double() for heads in masks]
    pairs = at.length * (at.length + 1) / 2
    met = sum(float(mask.sum()) for heads in masks for mask in heads) / (HEADS * len(masks))
    return met / pairs, float((layers[-1] @ layers[0] > 0).sum()) / pairs


@dataclass(frozen=True)
class Deep:
    """A very deep stack that learns a few short texts by heart, its learning rate rising over the first steps."""

    depth: int = 200
    dim: int = 32
    texts: int = 2
    steps: int = 60
    warmup: int = 20
    rate: float = 3e-3
    init: Init | None = None

    def spec(self, depth: int) -> Decoder:
        """init: None for the paper's."""
        sizes: dict[str, Any] = {"vocab": 16, "dim": self.dim, "heads": 2, "shape": (6, 6), "stride": 6, "cells": 1}
        spec: Decoder = make("sparse_transformer", **sizes, depth=depth, kind="strided", dropout=0.0)
        return spec if self.init is None else spec.replace(init=self.init)

    def losses(self, trial: Trial) -> list[float]:
        """Bits a token, before each step."""
        torch.manual_seed(0)
        model = self.spec(self.depth).build().train()
        text = torch.randint(16, (self.texts, 33), generator=generator(0, 0))  # the same, however the model begins
        optimizer = torch.optim.AdamW(model.parameters(), self.rate)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / self.warmup, total_iters=self.warmup - 1)
        found = []
        with trial.progress(f"{self.depth} layers", self.steps) as tick:
            for _ in range(self.steps):
                found.append(step(model, text, optimizer))
                schedule.step()
                tick()
        return found

    def kept(self, depth: int) -> tuple[float, float]:
        """KB that training keeps for each of `depth` blocks: recomputed, and as they are."""
        stack: Any = self.spec(depth).blocks[0]
        site = Site(self.dim, causal=True)
        x = torch.randn(1, 32, self.dim, requires_grad=True)
        found = []
        for layer in (stack.build(site).train(), StackLayer(stack.blocks, site).train()):
            tally = Kept([*layer.parameters()])
            with tally:
                layer(x, Call(Places.run(0, 32), remember=False))
            found.append(tally.kilobytes / depth)
        return found[0], found[1]


def step(model: nn.Module, text: torch.Tensor, optimizer: torch.optim.Optimizer) -> float:
    """One update; gives the loss before it, in bits a token."""
    logits = model(text[:, :-1], remember=False).logits
    loss = F.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item() / math.log(2)


@CLAIMS.case(
    "sparse_transformer",
    "recomputation and the initialisation of very deep stacks (dim 32, 2 texts of 32 tokens, learned by heart)",
    unit="bits",
    better="lower",
    rival=Rival("the same blocks without recomputation"),
)
def depth(trial: Trial) -> Iterator[Row]:
    """Trains hundreds of layers for a few steps, and counts what training keeps for each."""
    deep = Deep(depth=12, steps=4) if trial.quick else Deep()
    losses = deep.losses(trial)
    yield trial.row(f"{deep.depth} layers, before the first step", losses[0], rival=None)
    goal = value_at_most(losses[0] - (0.0 if trial.quick else 1.0))
    yield trial.row(f"{deep.depth} layers, before step {deep.steps}", losses[-1], rival=None, goal=goal)
    others = replace(deep, init=AsTorch()).losses(trial)
    yield trial.row(f"{deep.depth} layers, begun as PyTorch begins, before step {deep.steps}", others[-1], rival=None)
    shallow, far = deep.kept(2), deep.kept(8)
    stream = 32 * deep.dim * 4 / 1e3
    for count, (ours, theirs) in ((2, shallow), (8, far)):
        name = f"kept for each of {count} layers"
        yield trial.row(
            name, ours, theirs, unit="KB", goal=value_at_most(stream), note=f"one stream is {stream:.3f} KB"
        )
