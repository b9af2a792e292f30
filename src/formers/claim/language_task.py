"""Many languages in one model: the first token of a row tells the language, which tells what follows what.

What a layer must keep grows with the languages, and what it does for one token does not: the place for experts.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from formers.attention import Attention
from formers.block import Block, stack
from formers.call import Layer
from formers.claim.pupil import Pupil
from formers.data.chance import generator
from formers.embedding import Embedding
from formers.errors import ConfigError
from formers.model import Decoder
from formers.position import Learned
from formers.spec import Spec
from formers.tasks.chunked_loss import lost
from formers.train.task import Batch, Loss, Size, Tick, untold

HELD_OUT = -1  # the seed of rows that no training draws


@dataclass(frozen=True)
class Languages:
    """A `Task`: Markov chains over `symbols`, whose chances are softmax(N(0, sharpness^2)).

    rows: sequences in a batch. length: tokens read, the language's among them. evaluated: batches of `evaluate`.
    """

    count: int = 16
    symbols: int = 24
    sharpness: float = 2.2
    length: int = 64
    rows: int = 32
    evaluated: int = 16
    seed: int = 0

    @property
    def vocab(self) -> int:
        return self.symbols + self.count

    @property
    def data(self) -> dict[str, str]:
        return {"languages": repr(self)}

    @cached_property
    def chances(self) -> Tensor:
        """(languages, symbols, symbols): what follows what."""
        logits = torch.randn(self.count, self.symbols, self.symbols, generator=generator(self.seed, 0))
        return (self.sharpness * logits).softmax(-1)

    def require(self, spec: Spec) -> None:
        if not isinstance(spec, Decoder) or spec.vocab < self.vocab:
            raise ConfigError(f"{self.count} languages are told by a Decoder with vocab={self.vocab}")

    def batch(self, step: int) -> Batch:
        """inputs and targets (B, T): the language, then its symbols, the first of them any."""
        return self._drawn(generator(self.seed, step))

    def held_out(self) -> list[Batch]:
        """What is evaluated on."""
        return [self._drawn(generator(HELD_OUT, number)) for number in range(1, self.evaluated + 1)]

    def _drawn(self, chance: torch.Generator) -> Batch:
        language = torch.randint(self.count, (self.rows,), generator=chance)
        said = [torch.randint(self.symbols, (self.rows,), generator=chance)]
        for _ in range(self.length - 1):
            said.append(torch.multinomial(self.chances[language, said[-1]], 1, generator=chance)[:, 0])
        whole = torch.stack([self.symbols + language, *said], 1)
        return {"inputs": whole[:, :-1].contiguous(), "targets": whole[:, 1:].contiguous()}

    def size(self, batch: Batch) -> Size:
        return Size(batch["inputs"].numel(), batch["targets"].numel())

    def loss(self, model: Any, batch: Batch) -> Loss:
        return lost(model, batch["targets"], batch["inputs"])

    @torch.no_grad()
    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        nats = [float(self.loss(model, batch).nats) / batch["targets"].numel() for batch in self.held_out()]
        return {"nats": sum(nats) / len(nats)}

    def floor(self) -> float:
        """The nats of one who knows the languages."""
        told = []
        for batch in self.held_out():
            language, before, after = (
                batch["inputs"][:, :1] - self.symbols,
                batch["inputs"][:, 1:],
                batch["targets"][:, 1:],
            )
            first = torch.full((self.rows, 1), float(self.symbols)).log()
            told.append(torch.cat([first, -self.chances[language, before, after].log()], 1).mean())
        return float(torch.stack(told).mean())


@dataclass(frozen=True)
class Polyglot(Pupil):
    """A small decoder that learns them, with one feed-forward or another."""

    task: Languages = Languages()
    dim: int = 32
    depth: int = 2
    heads: int = 4
    steps: int = 2500
    rate: float = 3e-3

    def spec(self, attention: Layer) -> Decoder:
        """attention: the feed-forward of each block, which is what differs here."""
        block = Block((Attention(self.heads), attention))
        blocks = stack(block, times=self.depth)
        return Decoder("polyglot", self.task.vocab, self.dim, blocks, Embedding(Learned(self.task.length)))


TINY = Polyglot(Languages(count=4, symbols=6, length=12, rows=4, evaluated=2), dim=16, heads=2, steps=3)
