"""Linformer: sixteen slots in place of 64 tokens, learned or pooled, and the rank of what attention has learned."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from formers.attention import Attention, Linformer, PooledSlots
from formers.attention.layer import AttentionLayer
from formers.bench.registry import CLAIMS, Rival
from formers.bench.trial import Trial
from formers.claim.marker_task import TINY, Finder, Retrieval
from formers.report.rows import Row, ratio_at_least, value_at_least

HEADS, SLOTS = 4, 16
# Each column of a projection is learned from the texts whose marker stands there, so that longer texts take more of them:
# among 128 tokens nothing has been found after 500 steps.
FINDER = Finder(Retrieval(length=64, nearest=16), steps=3000)
FULL, LEARNED, POOLED = "attention", f"{SLOTS} slots, learned", f"{SLOTS} slots, pooled"
TEXTS = 32  # whose attention matrices are looked at


@CLAIMS.case(
    "linformer",
    f"attention to {SLOTS} slots (arXiv:2006.04768) looks for 1 of 12 markers among 64 tokens, 2 layers, dim 48",
    unit="accuracy",
    rival=Rival("one who guesses"),
)
def linformer(trial: Trial) -> Iterator[Row]:
    """Learns with full attention, with learned slots and with means; then the singular values of full attention."""
    finder = TINY if trial.quick else FINDER
    length = finder.task.length
    kinds = {
        FULL: Attention(HEADS),
        LEARNED: Linformer(HEADS, length, SLOTS),
        POOLED: Linformer(HEADS, length, SLOTS, PooledSlots()),
    }
    models = dict(zip(kinds, finder.learn_each(trial, kinds), strict=True))
    found = {name: finder.accuracy(model) for name, model in models.items()}
    for name, accuracy in found.items():
        yield trial.row(name, accuracy, finder.task.chance)
    for name in (FULL, POOLED):
        both = found[LEARNED], found[name]
        yield trial.row(f"learned slots beside {name}", *both, rival=name, goal=ratio_at_least(0.95))
    yield trial.row(
        f"energy of the {SLOTS} largest of {length} singular values of attention",
        energy(models[FULL], finder.task.batch(0)["inputs"][:TEXTS]),
        SLOTS / length,
        unit="share",
        rival="a matrix whose singular values are all alike",
        goal=value_at_least(0.9),
    )


def energy(model: nn.Module, inputs: Tensor) -> float:
    """The share of the squares of all singular values that the largest SLOTS have, in the mean of layers, texts and heads."""
    shares = []
    for matrices in attention_matrices(model, inputs):
        squares = torch.linalg.svdvals(matrices).square()
        shares.append((squares[..., :SLOTS].sum(-1) / squares.sum(-1)).mean())
    return torch.stack(shares).mean().item()


def attention_matrices(model: nn.Module, inputs: Tensor) -> list[Tensor]:
    """What attention weighs, (B, H, T, T) in each layer, for inputs (B, T)."""
    read: list[Tensor] = []

    def note(layer: Any, given: tuple[Any, ...]) -> None:
        q, k, _ = layer.projection.together(given[0])
        read.append((q @ k.mT * layer.scale).softmax(-1))

    hooks = [m.register_forward_pre_hook(note) for m in model.modules() if isinstance(m, AttentionLayer)]
    with torch.no_grad():
        model(inputs, remember=False)
    for hook in hooks:
        hook.remove()
    return read
