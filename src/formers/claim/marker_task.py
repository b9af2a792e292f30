"""Marker retrieval: one marked symbol among many others, and the first token must tell which one it is.

The marker stands further away than windows reach in a few layers, so the first token learns of it only where a pattern
brings far tokens together.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from formers.block import Block, stack
from formers.call import Layer
from formers.claim.pupil import Pupil
from formers.data.chance import generator
from formers.embedding import Embedding
from formers.errors import ConfigError
from formers.feedforward import MLP
from formers.head import Untied
from formers.model import Encoder
from formers.position import Learned
from formers.spec import Spec
from formers.spec.core import marks_read
from formers.tasks.chunked_loss import lost
from formers.train.task import Batch, Loss, Size, Tick, untold

QUESTION = 0
HELD_OUT = -1  # the seed of texts that no training draws
FIRST = slice(0, 1)


@dataclass(frozen=True)
class Retrieval:
    """A `Task`. length: tokens in a text, of which the first is QUESTION and carries the mark "global".

    markers: symbols 1 .. markers, of which one stands somewhere from place `nearest` to the last but one. fillers: how
    many other symbols there are, drawn at random for all other places. rows: texts in a batch. evaluated: batches that
    `evaluate` looks at. marked: whether the mark is given; models that read none refuse it.
    """

    length: int = 128
    markers: int = 12
    nearest: int = 32
    fillers: int = 20
    rows: int = 32
    evaluated: int = 16
    seed: int = 0
    marked: bool = True

    @property
    def vocab(self) -> int:
        return 1 + self.markers + self.fillers

    @property
    def chance(self) -> float:
        """The accuracy of one who guesses."""
        return 1 / self.markers

    @property
    def data(self) -> dict[str, str]:
        return {"retrieval": repr(self)}

    def require(self, spec: Spec) -> None:
        if not isinstance(spec, Encoder) or spec.vocab < self.vocab:
            raise ConfigError(f"a marker is found by an Encoder with vocab={self.vocab} that sees the whole text")

    def batch(self, step: int) -> Batch:
        """inputs (B, T), targets (B, 1), and where texts are marked global (B, T), 1 at the first token."""
        drawn, shape = generator(self.seed, step), (self.rows, self.length)
        inputs = torch.randint(1 + self.markers, self.vocab, shape, generator=drawn)
        marker = torch.randint(1, 1 + self.markers, (self.rows, 1), generator=drawn)
        inputs.scatter_(1, torch.randint(self.nearest, self.length - 1, (self.rows, 1), generator=drawn), marker)
        inputs[:, FIRST] = QUESTION
        told = {"global": (inputs == QUESTION).long()} if self.marked else {}
        return {"inputs": inputs, "targets": marker} | told

    def size(self, batch: Batch) -> Size:
        return Size(batch["inputs"].numel(), batch["targets"].numel())

    def loss(self, model: Any, batch: Batch) -> Loss:
        return lost(model, batch["targets"], batch["inputs"], logits_at=FIRST, marks=marks(batch))

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """accuracy: the share of texts whose marker is told; each batch has its own random choices."""
        unseen, right = replace(self, seed=HELD_OUT), 0.0
        for number in range(self.evaluated):
            batch = unseen.batch(number)
            with torch.no_grad():
                out = model(batch["inputs"], marks=marks(batch), logits_at=FIRST, seed=number, remember=False)
            right += (out.logits.argmax(-1) == batch["targets"]).double().mean().item()
            tick((number + 1) / self.evaluated)
        return {"accuracy": right / self.evaluated}


@dataclass(frozen=True)
class Finder(Pupil):
    """The size of an encoder that finds markers, and how long it learns."""

    task: Retrieval = Retrieval()
    dim: int = 48
    depth: int = 2
    hidden: int = 192
    steps: int = 500
    rate: float = 3e-3

    def spec(self, attention: Layer) -> Encoder:
        """An encoder with that attention in every block."""
        blocks = stack(Block((attention, MLP(self.hidden))), times=self.depth)
        return Encoder("finder", self.task.vocab, self.dim, blocks, Embedding(Learned(self.task.length)), head=Untied())

    def learn(self, attention: Any, tick: Callable[[], object], begin: nn.Module | None = None) -> nn.Module:
        """A trained model of that attention, which is told which token is global if it reads that."""
        task = self._task_for(self.spec(attention))
        return Pupil.learn(replace(self, task=task), attention, tick, begin)

    def accuracy(self, model: Any) -> float:
        """The share of texts whose marker is told."""
        return self._task_for(model.spec).evaluate(model)["accuracy"]

    def _task_for(self, spec: Spec) -> Retrieval:
        return replace(self.task, marked="global" in marks_read(spec))


def marks(batch: Batch) -> dict[str, Tensor]:
    """What the model is told of the tokens."""
    return {name: batch[name] for name in ("global",) if name in batch}


TINY = Finder(Retrieval(length=16, markers=3, nearest=8, rows=4, evaluated=2), dim=16, hidden=16, steps=2)
