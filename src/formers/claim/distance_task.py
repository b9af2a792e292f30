"""Copying from a distance: most tokens ask for the one a few places back, some for one far back.

How far a head must look depends on the token, so it shows what a span that is learned comes to. After the toy task of
Sukhbaatar et al. 2019, arXiv:1905.07799, as far as it needs two distances.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from formers.attention.span_usage import SpanTally
from formers.block import Block, stack
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

FAR = 0  # the symbol that asks for the far token; all others ask for the near one
HELD_OUT = -1  # the seed of texts that no training draws


@dataclass(frozen=True)
class Distances:
    """A `Task`. symbols: how many there are, FAR among them, which is a `share` of all tokens. near, far: how many places
    back the token stands that is to be told. rows: sequences in a batch. evaluated: batches that `evaluate` looks at."""

    symbols: int = 16
    near: int = 3
    far: int = 24
    share: float = 0.15
    length: int = 64
    rows: int = 8
    evaluated: int = 16
    seed: int = 0

    @property
    def vocab(self) -> int:
        return self.symbols

    @property
    def data(self) -> dict[str, str]:
        return {"distances": repr(self)}

    def require(self, spec: Spec) -> None:
        if not isinstance(spec, Decoder) or spec.vocab < self.vocab:
            raise ConfigError(f"tokens of {self.symbols} kinds are told by a Decoder with vocab={self.vocab}")

    def batch(self, step: int) -> Batch:
        """inputs (B, T) and targets (B, T - far): the first tokens have nothing so far back."""
        drawn, shape = generator(self.seed, step), (self.rows, self.length)
        inputs = torch.randint(1, self.symbols, shape, generator=drawn)
        inputs = inputs.masked_fill(torch.rand(shape, generator=drawn) < self.share, FAR)
        asked, length = inputs[:, self.far :], self.length
        near, far = inputs[:, self.far - self.near : length - self.near], inputs[:, : length - self.far]
        return {"inputs": inputs, "targets": torch.where(asked == FAR, far, near)}

    def size(self, batch: Batch) -> Size:
        return Size(batch["inputs"].numel(), batch["targets"].numel())

    def loss(self, model: Any, batch: Batch) -> Loss:
        return lost(model, batch["targets"], batch["inputs"], logits_at=self._told)

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """near, far: the shares of right answers of either kind; and what `SpanTally` tells."""
        unseen, right, asked = replace(self, seed=HELD_OUT), torch.zeros(2), torch.zeros(2)
        spans = SpanTally()
        for number in range(self.evaluated):
            batch = unseen.batch(number)
            with torch.no_grad():
                out = model(batch["inputs"], logits_at=self._told, remember=False)
            hits = out.logits.argmax(-1) == batch["targets"]
            is_far = batch["inputs"][:, self._told] == FAR
            right += _sums(hits, is_far)
            asked += _sums(torch.ones_like(hits), is_far)
            spans.add(out.records)
            tick((number + 1) / self.evaluated)
        near, far = (right / asked.clamp(min=1)).tolist()
        return {"near": near, "far": far} | spans.figures()

    @property
    def _told(self) -> slice:
        return slice(self.far, None)


@dataclass(frozen=True)
class DistanceLearner(Pupil):
    """The size of a model that copies from a distance, and how long it learns."""

    task: Distances = Distances()
    dim: int = 48
    depth: int = 2
    hidden: int = 192
    steps: int = 500
    rate: float = 5e-3

    def spec(self, attention: Layer) -> Decoder:
        """A decoder with that attention in every block; nothing else tells it where tokens stand."""
        blocks = stack(Block((attention, MLP(self.hidden))), times=self.depth)
        return Decoder("distance_learner", self.task.vocab, self.dim, blocks, head=Untied())


def _sums(counted: Tensor, is_far: Tensor) -> Tensor:
    """How many of the near and of the far ones."""
    return torch.stack([(counted & ~is_far).sum(), (counted & is_far).sum()]).float()


TINY = DistanceLearner(Distances(symbols=4, length=32, rows=4, evaluated=2), dim=16, hidden=16, steps=2)
