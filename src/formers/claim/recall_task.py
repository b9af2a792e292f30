"""Recall: a marker among the first tokens of a text is told at its end, when those tokens are long out of a short memory."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from formers.block import Block, stack
from formers.call import Layer, add_losses
from formers.claim.pupil import Pupil
from formers.data.chance import generator
from formers.errors import ConfigError
from formers.feedforward import MLP
from formers.head import Untied
from formers.model import Decoder
from formers.spec import Spec
from formers.state import detach
from formers.tasks.chunked_loss import lost
from formers.train.task import Batch, Loss, Size, Tick, untold

QUESTION = 0
HELD_OUT = -1  # the seed of texts that no training draws
LAST = slice(-1, None)


@dataclass(frozen=True)
class Recall:
    """A `Task`. length: tokens in a text, in segments of `segment`; the last token is QUESTION.

    markers: symbols 1 .. markers, of which one stands somewhere in the first segment. fillers: how many other symbols there
    are, drawn at random for all other places. rows: texts in a batch. evaluated: batches that `evaluate` looks at.
    """

    length: int = 80
    segment: int = 8
    markers: int = 8
    # Few fillers: a compression that is learned keeps what is frequent first, and markers are rare.
    fillers: int = 4
    rows: int = 32
    evaluated: int = 16
    seed: int = 0

    @property
    def vocab(self) -> int:
        return 1 + self.markers + self.fillers

    @property
    def chance(self) -> float:
        """The accuracy of one who guesses."""
        return 1 / self.markers

    @property
    def data(self) -> dict[str, str]:
        return {"recall": repr(self)}

    def require(self, spec: Spec) -> None:
        if not isinstance(spec, Decoder) or spec.vocab < self.vocab:
            raise ConfigError(f"a marker is recalled by a Decoder with vocab={self.vocab}")

    def batch(self, step: int) -> Batch:
        """inputs (B, T) and targets (B, 1)."""
        drawn, shape = generator(self.seed, step), (self.rows, self.length)
        inputs = torch.randint(1 + self.markers, self.vocab, shape, generator=drawn)
        marker = torch.randint(1, 1 + self.markers, (self.rows, 1), generator=drawn)
        inputs.scatter_(1, torch.randint(self.segment, (self.rows, 1), generator=drawn), marker)
        inputs[:, LAST] = QUESTION
        return {"inputs": inputs, "targets": marker}

    def size(self, batch: Batch) -> Size:
        return Size(batch["inputs"].numel(), batch["targets"].numel())

    def loss(self, model: Any, batch: Batch) -> Loss:
        """Of the last segment, after a state without gradient: nothing of the marker reaches the answer but by memory."""
        before, last = self._parts(batch)
        out = model(before, logits_at=None)
        answer = lost(model, batch["targets"], last, state=detach(out.state), logits_at=LAST)
        return answer._replace(named=add_losses(out.losses, dict(answer.named)))

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """accuracy: the share of texts whose marker is told."""
        unseen, right = replace(self, seed=HELD_OUT), 0.0
        for number in range(self.evaluated):
            batch = unseen.batch(number)
            with torch.no_grad():
                before, last = self._parts(batch)
                out = model(last, model(before, logits_at=None).state, logits_at=LAST, remember=False)
            right += (out.logits.argmax(-1) == batch["targets"]).double().mean().item()
            tick((number + 1) / self.evaluated)
        return {"accuracy": right / self.evaluated}

    def _parts(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """All segments but the last, and the last."""
        return batch["inputs"][:, : -self.segment], batch["inputs"][:, -self.segment :]


@dataclass(frozen=True)
class Recaller(Pupil):
    """The size of a decoder that recalls markers, and how long it learns."""

    task: Recall = Recall()
    dim: int = 48
    depth: int = 1
    hidden: int = 192
    steps: int = 1200
    rate: float = 3e-3

    def spec(self, attention: Layer) -> Decoder:
        """A decoder with that attention in every block."""
        blocks = stack(Block((attention, MLP(self.hidden))), times=self.depth)
        return Decoder("recaller", self.task.vocab, self.dim, blocks, head=Untied())

    def accuracy(self, model: nn.Module) -> float:
        """The share of texts whose marker is told."""
        return self.task.evaluate(model)["accuracy"]


TINY = Recaller(Recall(markers=3, rows=4, evaluated=2), dim=16, hidden=16, steps=2)
