"""Routing: content chooses better than chance, and what the published choice tells of the future."""

from collections.abc import Iterator

import torch

from formers.attention import Attention, Causal, SharedQK, Window
from formers.attention.routing import Routing
from formers.bench.registry import CLAIMS
from formers.bench.trial import Trial
from formers.call import Layer
from formers.claim.at_random import RandomClusters
from formers.claim.copy_task import TINY, Copier
from formers.parallel import Parallel
from formers.position import SelfLast
from formers.report.rows import Row, value_at_least, value_at_most

CLUSTERS, WINDOW = 4, 16
DECAY = 0.99  # the paper's 0.999 keeps centroids where they began for as long as these models learn
KEPT = 40  # tokens that an edit of all later ones leaves alone
CHANGED = 1e-6  # in float64: rounding is far below, an effect far above


@CLAIMS.case(
    "routing",
    "half of the heads local, half routed, as in arXiv:2003.05997, on the copy task (31 of 127 symbols, 2 layers, dim 64)",
    unit="accuracy",
)
def routing(trial: Trial) -> Iterator[Row]:
    """Learns with five kinds of heads, then edits the end of a text and counts the earlier outputs that change."""
    copier = TINY if trial.quick else Copier()
    kinds = heads(copier.dim // 2)
    models = copier.learn_each(trial, kinds)
    found = {}
    for name, model in zip(kinds, models, strict=True):
        found[name] = copier.accuracy(model)
        yield trial.row(name, found[name])
    local, chance, routed, balanced, full = found.values()
    yield trial.row("full above routed", full - routed, goal=value_at_least(0.0))
    yield trial.row("routed above random", routed - chance, goal=value_at_least(0.05))
    yield trial.row("routed above local", routed - local, goal=value_at_least(0.05))
    yield trial.row("what knowing the past alone costs: balanced above routed", balanced - routed, better="lower")
    for name, select, goal in (
        ("published form", Routing(8, 8, balanced=True), None),
        ("strict form", Routing(8, 8), value_at_most(0)),
    ):
        leak = f"earlier outputs that later tokens change, of {KEPT}, {name}"
        yield trial.row(leak, moved(select), unit="tokens", better="lower", goal=goal)


def heads(width: int) -> dict[str, Layer]:
    """Two heads of that width each: both local, one local and one of random, routed or balanced clusters, both full."""
    near = Attention(1, head_dim=width, pattern=Causal() & Window(WINDOW))
    every = Attention(1, head_dim=width, projection=SharedQK(), position=SelfLast(), scale=1.0)
    by_chance = RandomClusters(CLUSTERS, WINDOW, commitment=0.0)
    by_content = Routing(CLUSTERS, WINDOW, decay=DECAY)
    published = by_content.replace(balanced=True)
    return {
        "local heads": near.replace(heads=2),
        "local and random heads": Parallel((near, every.replace(select=by_chance))),
        "local and routed heads": Parallel((near, every.replace(select=by_content))),
        "local and routed heads, balanced as published": Parallel((near, every.replace(select=published))),
        "full heads": every.replace(heads=2),
    }


def moved(select: Routing) -> int:
    """How many of the first outputs of a fresh layer of that selection change with the tokens behind them."""
    copier = Copier(depth=1)
    attention = Attention(2, projection=SharedQK(), position=SelfLast(), scale=1.0, select=select)
    torch.manual_seed(0)
    model = copier.spec(attention).build().double().eval()
    text = copier.task.batch(0)["inputs"][:1]
    edited = text.clone()
    edited[:, KEPT:] = copier.task.batch(1)["inputs"][:1, KEPT:]
    with torch.no_grad():
        before, after = (model(tokens).logits[0, :KEPT] for tokens in (text, edited))
    return int(((before - after).abs().amax(-1) > CHANGED).sum())
