"""The row task: images of 12 x 12 pixels of 4 colours, in which each of the last 6 rows follows from the row 6 above it.

A pixel of the second half is the colour 6 rows above it, plus 1, modulo 4, and those of the first half are random: a kind of
attention that does not reach 6 rows up has nothing to tell it by, and loses 2 bits a pixel. In raster order that is 72
pixels back.
"""

import math
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor, nn

from formers.block import Block
from formers.call import Layer
from formers.claim.pupil import Pupil
from formers.data.chance import generator
from formers.embedding import Embedding
from formers.errors import ConfigError
from formers.feedforward import MLP
from formers.head import Untied
from formers.model import Decoder
from formers.position import AbsolutePosition, Learned
from formers.spec import Spec
from formers.tasks.chunked_loss import lost
from formers.train.task import Batch, Loss, Size, Tick, untold

START = 0
HELD_OUT = -1  # the seed of images that no training draws


@dataclass(frozen=True)
class Rows:
    """A `Task`. side: pixels in a row, and rows. order: which pixel, counted in raster order, each place of the sequence
    is; None: raster order. rows: images in a batch. evaluated: batches that `evaluate` looks at."""

    side: int = 12
    colours: int = 4
    order: tuple[int, ...] | None = None
    rows: int = 16
    evaluated: int = 8
    seed: int = 0

    @property
    def vocab(self) -> int:
        return self.colours

    @property
    def length(self) -> int:
        """Tokens that a model reads: START, and all pixels but the last."""
        return self.side**2

    @property
    def data(self) -> dict[str, str]:
        return {"rows": repr(self)}

    def require(self, spec: Spec) -> None:
        if not isinstance(spec, Decoder) or spec.vocab < self.vocab:
            raise ConfigError(f"images of {self.colours} colours are told by a Decoder with vocab={self.vocab}")

    def images(self, step: int) -> Tensor:
        """(B, side, side) int64: a random upper half, and a lower half that follows from it."""
        shape = self.rows, self.side // 2, self.side
        upper = torch.randint(self.colours, shape, generator=generator(self.seed, step))
        return torch.cat([upper, (upper + 1) % self.colours], 1)

    def batch(self, step: int) -> Batch:
        """inputs (B, T): START and the pixels in order; targets (B, T / 2): those that follow; foretold (B, T) bool: at
        which places."""
        pixels = self.images(step).flatten(1)[:, self._order]
        foretold = (self._order >= self.length // 2).expand(self.rows, -1)
        inputs = torch.cat([torch.full((self.rows, 1), START), pixels[:, :-1]], 1)
        return {"inputs": inputs, "targets": pixels[foretold].view(self.rows, -1), "foretold": foretold}

    def size(self, batch: Batch) -> Size:
        return Size(batch["inputs"].numel(), batch["targets"].numel())

    def loss(self, model: Any, batch: Batch) -> Loss:
        return lost(model, batch["targets"].flatten(), batch["inputs"], logits_at=batch["foretold"])

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """bits: lost at a pixel of the second halves of unseen images, on average."""
        unseen, nats, pixels = replace(self, seed=HELD_OUT), 0.0, 0
        for number in range(self.evaluated):
            batch = unseen.batch(number)
            with torch.no_grad():
                nats += self.loss(model, batch).nats.item()
            pixels += batch["targets"].numel()
            tick((number + 1) / self.evaluated)
        return {"bits": nats / (math.log(2) * pixels)}

    @property
    def _order(self) -> Tensor:
        return torch.arange(self.length) if self.order is None else torch.tensor(self.order)


@dataclass(frozen=True)
class RowLearner(Pupil):
    """The size of a model that tells pixels, and how long it learns. position: None for a learned vector of each place."""

    task: Rows = Rows()
    dim: int = 48
    depth: int = 2
    hidden: int = 192
    steps: int = 900
    rate: float = 3e-3
    position: AbsolutePosition | None = None

    def spec(self, attention: Layer | tuple[Layer, ...]) -> Decoder:
        """A decoder with that attention in every block, or with several in turn."""
        turns = islice(cycle(attention if isinstance(attention, tuple) else (attention,)), self.depth)
        blocks = tuple(Block((each, MLP(self.hidden))) for each in turns)
        embedding = Embedding(self.position or Learned(self.task.length))
        return Decoder("row_learner", self.task.vocab, self.dim, blocks, embedding, head=Untied())

    def bits(self, model: nn.Module) -> float:
        """What the model loses at a pixel of the second half; log2(colours) is chance."""
        return self.task.evaluate(model)["bits"]


TINY = RowLearner(Rows(rows=2, evaluated=1), dim=16, hidden=16, steps=2)
