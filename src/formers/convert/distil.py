"""Each new layer taught by the old one in its place: the old layer's inputs, and what the old layer made of them."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from formers.call import Call
from formers.convert.pairs import Pair
from formers.train.task import Tick, untold

Seen = dict[str, tuple[Tensor, Call, Tensor]]


def distil(
    old: nn.Module,
    pairs: list[Pair],
    batch: Callable[[int], Tensor],
    *,
    steps: int,
    learning_rate: float = 3e-3,
    tick: Tick = untold,
) -> None:
    """Train the new layer of every pair, each by itself, to put out what the old one does inside the old model.

    No layer sees another's mistakes, and none needs the others: one pass through the old model serves them all.
    batch: the tokens (B, T) of a step, counted from 1. The learning rate falls to 0 along half a cosine.
    """
    layers = nn.ModuleList(pair.new for pair in pairs)
    optimizer = torch.optim.AdamW(layers.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    layers.train()
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = learning_rate * (1 + math.cos(math.pi * (step - 1) / steps)) / 2
        seen = watched(old, pairs, batch(step))
        for pair in pairs:
            _share_missed(pair, seen, seed=step).backward()
        optimizer.step()
        optimizer.zero_grad()
        tick(step / steps)
    layers.eval()


def missed(old: nn.Module, pairs: list[Pair], tokens: Tensor) -> list[float]:
    """For each pair, the share of the old layer's output, as variance, that the new one does not put out."""
    with torch.no_grad():
        seen = watched(old, pairs, tokens)
        return [float(_share_missed(pair, seen, seed=0)) for pair in pairs]


def watched(old: nn.Module, pairs: list[Pair], tokens: Tensor) -> Seen:
    """What the old layer of each pair was given, and what it put out, in a pass over tokens (B, T)."""
    seen: Seen = {}
    with torch.no_grad(), _watching(pairs, seen):
        old(tokens, logits_at=None, remember=False)
    return seen


@contextmanager
def _watching(pairs: list[Pair], seen: Seen) -> Iterator[None]:
    def note(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, given: tuple[Any, ...], out: Any) -> None:
            seen[name] = (given[0], given[1], out.y)

        return hook

    handles = [pair.old.register_forward_hook(note(pair.name)) for pair in pairs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _share_missed(pair: Pair, seen: Seen, seed: int) -> Tensor:
    x, call, wanted = seen[pair.name]
    made = pair.new(x, replace(call, seed=seed)).y
    about = wanted - wanted.mean((0, 1))
    return (made - wanted).square().sum() / about.square().sum()
