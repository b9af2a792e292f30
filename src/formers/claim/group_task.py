"""Products in a group: a sequence of random generators of S4, and after each of them the product of all so far.

The group is not commutative, so no count of what came tells the product: it has to be worked out step by step, and what was
worked out at one token is what the next one needs.
"""

import itertools
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from formers.call import Layer
from formers.claim.pupil import Pupil
from formers.data.chance import generator
from formers.embedding import Embedding
from formers.errors import ConfigError
from formers.head import Untied
from formers.model import Decoder
from formers.position import AbsolutePosition
from formers.spec import Spec
from formers.tasks.chunked_loss import lost
from formers.train.task import Batch, Loss, Size, Tick, untold

ELEMENTS = tuple(itertools.permutations(range(4)))
GENERATORS = ((1, 0, 2, 3), (1, 2, 3, 0), (0, 2, 3, 1))  # two of the four change places, all four or three go round
HELD_OUT = -1  # the seed of sequences that no training draws


@dataclass(frozen=True)
class Products:
    """A `Task`. length: generators in a sequence. rows: sequences in a batch. evaluated: batches that `evaluate` looks at."""

    length: int = 24
    rows: int = 32
    evaluated: int = 16
    seed: int = 0

    @property
    def vocab(self) -> int:
        """As many as there are products; the generators that are read are the first of them."""
        return len(ELEMENTS)

    @property
    def chance(self) -> float:
        """The accuracy of one who guesses."""
        return 1 / len(ELEMENTS)

    @property
    def data(self) -> dict[str, str]:
        return {"products": repr(self)}

    def require(self, spec: Spec) -> None:
        if not isinstance(spec, Decoder) or spec.vocab < self.vocab:
            raise ConfigError(f"products are told by a Decoder with vocab={self.vocab}")

    def batch(self, step: int) -> Batch:
        """inputs (B, T), numbers of generators, and targets (B, T), the number of the product of all up to each."""
        shape, table = (self.rows, self.length), multiplication()
        inputs = torch.randint(len(GENERATORS), shape, generator=generator(self.seed, step))
        product, targets = torch.zeros(self.rows, dtype=torch.int64), torch.empty_like(inputs)
        for t in range(self.length):
            product = table[product, inputs[:, t]]
            targets[:, t] = product
        return {"inputs": inputs, "targets": targets}

    def size(self, batch: Batch) -> Size:
        return Size(batch["inputs"].numel(), batch["targets"].numel())

    def loss(self, model: Any, batch: Batch) -> Loss:
        return lost(model, batch["targets"], batch["inputs"], logits_at=slice(None))

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """accuracy: the share of products that are told; last: of those in the last third of the sequences."""
        unseen, right = replace(self, seed=HELD_OUT), []
        for number in range(self.evaluated):
            batch = unseen.batch(number)
            with torch.no_grad():
                out = model(batch["inputs"], remember=False)
            right.append((out.logits.argmax(-1) == batch["targets"]).double())
            tick((number + 1) / self.evaluated)
        by_place = torch.cat(right).mean(0)
        return {"accuracy": by_place.mean().item(), "last": by_place[-(self.length // 3) :].mean().item()}


def multiplication() -> Tensor:
    """(elements, generators): the number of the product of each element and each generator behind it."""
    made = [[ELEMENTS.index(tuple(each[i] for i in by)) for by in GENERATORS] for each in ELEMENTS]
    return torch.tensor(made)


@dataclass(frozen=True)
class Multiplier(Pupil):
    """The size of a model that tells products, and how long it learns."""

    task: Products = Products()
    dim: int = 32
    steps: int = 2500
    rate: float = 3e-3

    def spec(self, attention: tuple[tuple[Layer, ...], AbsolutePosition | None]) -> Decoder:
        """A decoder of that depth and those positions."""
        blocks, position = attention
        return Decoder("multiplier", self.task.vocab, self.dim, blocks, Embedding(position), head=Untied())


TINY = Multiplier(Products(length=6, rows=4, evaluated=2), dim=16, steps=2)
