"""What goes into a layer beside its input, and what comes out beside its output."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from formers.places import Memo, Places
from formers.spec.core import Site, Spec


class Encoded(NamedTuple):
    """An encoder's output that can be attended to: hidden (B, S, M) and where its tokens stand."""

    hidden: Tensor
    places: Places


@dataclass(frozen=True)
class Call:
    """One pass through a model, as its layers see it.

    at: where the tokens of this call stand.
    encoded: an encoder's output, for cross-attention.
    seed: for choices that must be random but repeatable (hash rotations, say); never a hidden generator.
    memo: what the layers of this one call share. Nothing that a gradient flows through: a recomputed pass meets it again.
    read: from a hidden state (..., M) to logits (..., V), as at the end of the model, for layers that may stop early.
    remember: False says that nothing continues this call: no layer need keep a state, and none comes out of the model.
    retrieved: (B, T, k) int64, the tokens that somebody found for each place, -1 for none. No mark of the places, for a
        cache would carry it along with every key.
    table: (V, M), the model's own vectors of its tokens, for layers that read these.
    """

    at: Places
    encoded: Encoded | None = None
    seed: int = 0
    memo: Memo = field(default_factory=Memo)
    read: Callable[[Tensor], Tensor] | None = None
    remember: bool = True
    retrieved: Tensor | None = None
    table: Tensor | None = None

    def with_places(self, at: Places) -> "Call":
        """The same call for other tokens: some of a layer's, say, or an encoder's output put in front of them."""
        return replace(self, at=at)

    def chance(self, path: tuple[int, ...]) -> torch.Generator:
        """The random numbers of the part built at `path`: the same in every call with this seed."""
        mixed = np.random.SeedSequence((self.seed, *path)).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(mixed[0]))


class Out(NamedTuple):
    """What every layer returns.

    y: (B, T, M).
    state: what the layer must be given to continue after these tokens; None if it remembers nothing, or need not.
    losses: named scalars to be added to the training loss; equal names of several layers are summed.
    choices: discrete decisions (buckets, active units, routes) as tensors. A layer that is given them back
        as `choices` must use them instead of deciding again, so that a recomputed pass is the same pass.
    records: named tensors to look at or to train on (hidden states at exits, loads of experts), those of several
        layers side by side.
    """

    y: Tensor
    state: Any = None
    losses: dict[str, Tensor] = {}  # noqa: RUF012 - never changed: layers build new ones
    choices: Any = None
    records: dict[str, tuple[Tensor, ...]] = {}  # noqa: RUF012 - never changed


class Layer(Spec):
    """A part of a depth: attention, feed-forward, block, or whatever else keeps the contract.

    comes_last: True for one whose output the model reads in another way than that of others, by its `end(out, call)`.
    """

    comes_last: ClassVar[bool] = False

    def build(self, site: Site) -> nn.Module:
        """A module (x (B, T, M), call, state=None, choices=None) -> Out.

        It may have a method skip(x, call, state) -> state, a shorter way to what `skip` below says, and a method
        parts(call, choices) -> list[Part] | None, smaller pieces of work that come to the same (`formers.parts`).
        """
        raise NotImplementedError

    @property
    def norms_itself(self) -> bool:
        """Whether it reads the stream as it is, through norms of its own, so that none stands before it."""
        return False

    @property
    def max_length(self) -> int | None:
        """How many positions it reads; None: any number."""
        return None

    def in_dim(self, dim: int) -> int:
        """The width of what it reads, at a site `dim` wide."""
        return dim

    def out_dim(self, dim: int) -> int:
        """The width of what it puts out, at a site `dim` wide."""
        return dim

    def source_dim(self, dim: int) -> int | None:
        """The width of the encoder's output that it reads; None: it reads none."""
        return None


def skip(layer: nn.Module, x: Tensor, call: Call, state: Any = None) -> Any:
    """The state of a layer after tokens that are carried past it unchanged: later tokens still meet them there."""
    shorter = getattr(layer, "skip", None)
    return layer(x, call, state).state if shorter is None else shorter(x, call, state)


def add_losses(*parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """The named losses of several layers, equal names summed."""
    total: dict[str, Tensor] = {}
    for part in parts:
        for name, loss in part.items():
            total[name] = total[name] + loss if name in total else loss
    return total


def add_records(*parts: dict[str, tuple[Tensor, ...]]) -> dict[str, tuple[Tensor, ...]]:
    """The named records of several layers, equal names side by side."""
    total: dict[str, tuple[Tensor, ...]] = {}
    for part in parts:
        for name, tensors in part.items():
            total[name] = total.get(name, ()) + tensors
    return total
