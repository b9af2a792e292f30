"""Repeats: a code of random symbols, filler, and the same code again, further back than any window reaches.

Stored keys have no gradient, so such repeats alone teach nothing: a key that nobody finds is never made findable. So half
of the texts repeat within a segment, where local attention learns to find a code by the same queries and keys.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from formers.block import Block
from formers.call import Layer
from formers.claim.pupil import Pupil
from formers.data.chance import generator
from formers.errors import ConfigError
from formers.feedforward import MLP
from formers.head import Untied
from formers.model import Decoder
from formers.spec import Spec
from formers.tasks.chunked_loss import lost
from formers.train.task import Batch, Loss, Size, Tick, untold

HELD_OUT = -1  # the seed of texts that no training draws


@dataclass(frozen=True)
class Repeats:
    """A `Task` of texts of whole segments. A code is of `code` different symbols, and stands anywhere in its segment, so that
    its repeat is found by what it says and not by how far away it is. No symbol of a text is in two of its codes, so that
    what is found is never misleading.

    segment: tokens. far: segments of filler between that of a code and that of its repeat in half of the texts; in the
    other half each segment holds a code and its repeat. symbols, fillers: how many of each there are. rows: texts in a
    batch, half of either kind. evaluated: batches that `evaluate` looks at.
    """

    segment: int = 32
    code: int = 8
    far: int = 3
    symbols: int = 40
    fillers: int = 8
    rows: int = 32
    evaluated: int = 16
    seed: int = 0

    @property
    def length(self) -> int:
        return self.segment * (self.far + 2)

    @property
    def vocab(self) -> int:
        return self.symbols + self.fillers

    @property
    def chance(self) -> float:
        """The accuracy of one who knows only which symbols of a code have been repeated already."""
        told = range(1, self.code)
        return sum(1 / (self.symbols - count) for count in told) / len(told)

    @property
    def data(self) -> dict[str, str]:
        return {"repeats": repr(self)}

    def require(self, spec: Spec) -> None:
        if not isinstance(spec, Decoder) or spec.vocab < self.vocab:
            raise ConfigError(f"repeats are told by a Decoder with vocab={self.vocab}")

    def batch(self, step: int) -> Batch:
        """inputs (B, T), and which of them are to be told by those before (B, T): those of a repeat, but for its first."""
        drawn, half = generator(self.seed, step), self.rows // 2
        inputs = torch.randint(self.symbols, self.vocab, (self.rows, self.length), generator=drawn)
        told = torch.zeros(self.rows, self.length, dtype=torch.bool)
        room, last = self.segment - self.code, self.length - self.segment
        for row in range(self.rows):
            codes = torch.randperm(self.symbols, generator=drawn)[: self.code * (self.far + 2)].split(self.code)
            if row < half:
                places = [self._near(begin, drawn) for begin in range(0, self.length, self.segment)]
            else:
                first, again = (at + int(torch.randint(room + 1, (), generator=drawn)) for at in (0, last))
                places = [(first, again)]
            for (first, again), code in zip(places, codes, strict=False):
                inputs[row, first : first + self.code] = inputs[row, again : again + self.code] = code
                told[row, again + 1 : again + self.code] = True
        return {"inputs": inputs, "told": told}

    def _near(self, begin: int, drawn: torch.Generator) -> tuple[int, int]:
        """Where a code and its repeat stand in the segment that begins there."""
        spare = self.segment - 2 * self.code
        gap = int(torch.randint(spare + 1, (), generator=drawn))
        first = begin + int(torch.randint(spare - gap + 1, (), generator=drawn))
        return first, first + self.code + gap

    def size(self, batch: Batch) -> Size:
        return Size(batch["inputs"].numel(), int(batch["told"].sum()))

    def loss(self, model: Any, batch: Batch) -> Loss:
        targets = batch["inputs"][batch["told"]]
        return lost(model, targets, batch["inputs"], logits_at=batch["told"].roll(-1, 1))

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """near, far: the share of the symbols of repeats that are told, within a segment and beyond the window."""
        unseen, right = replace(self, seed=HELD_OUT), {"near": 0.0, "far": 0.0}
        for number in range(self.evaluated):
            batch = unseen.batch(number)
            with torch.no_grad():
                logits = model(batch["inputs"], remember=False).logits
            hit = logits[:, :-1].argmax(-1) == batch["inputs"][:, 1:]
            told, half = batch["told"][:, 1:], self.rows // 2
            for name, rows in {"near": slice(0, half), "far": slice(half, None)}.items():
                right[name] += hit[rows][told[rows]].double().mean().item()
            tick((number + 1) / self.evaluated)
        return {name: total / self.evaluated for name, total in right.items()}


@dataclass(frozen=True)
class Repeater(Pupil):
    """The size of a decoder that repeats codes, and how long it learns."""

    task: Repeats = Repeats()
    dim: int = 64
    hidden: int = 128
    steps: int = 1500
    rate: float = 3e-3

    def spec(self, attention: tuple[Layer, ...]) -> Decoder:
        """A decoder of these layers of attention."""
        blocks = tuple(Block((layer, MLP(self.hidden))) for layer in attention)
        return Decoder("repeater", self.task.vocab, self.dim, blocks, head=Untied())


TINY = Repeater(
    Repeats(segment=8, code=3, far=2, symbols=12, fillers=2, rows=4, evaluated=2), dim=16, hidden=16, steps=2
)
