"""Pointer chasing: a permutation is told, then how often to follow it and from where; the answer is where that ends.

Each hop reads what the hop before it found, so k hops take k rounds of attention one after another: one round does not
answer more than one hop, however wide it is. Some questions are harder than others, and the last token but one says how
hard. Were it the last, where the answer is foretold, then one round more would go by before that place knows the start.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from formers.claim.pupil import AsTorch, Pupil
from formers.data.chance import generator
from formers.embedding import Embedding
from formers.errors import ConfigError
from formers.head import Untied
from formers.model import Decoder
from formers.position import AbsolutePosition
from formers.spec import Spec
from formers.tasks.chunked_loss import lost
from formers.train import AdamW
from formers.train.task import Batch, Loss, Size, Tick, untold

HELD_OUT = -1  # the seed of questions that no training draws
LAST = slice(-1, None)


@dataclass(frozen=True)
class Pointers:
    """A `Task`. size_of: how many numbers 0 .. size_of - 1 are permuted. hops: questions ask for 1 .. hops of them.

    A text is the image of 0, of 1, and so on, then the number of hops, which has tokens of its own behind the numbers,
    size_of + k - 1 saying k hops, then the start. The answer is foretold at the last token, the start. rows: texts in a batch.
    evaluated: batches that `evaluate` looks at.
    """

    size_of: int = 8
    hops: int = 4
    rows: int = 64
    evaluated: int = 16
    seed: int = 0

    @property
    def vocab(self) -> int:
        return self.size_of + self.hops

    @property
    def length(self) -> int:
        return self.size_of + 2

    @property
    def chance(self) -> float:
        """The accuracy of one who guesses."""
        return 1 / self.size_of

    @property
    def data(self) -> dict[str, str]:
        return {"pointers": repr(self)}

    def require(self, spec: Spec) -> None:
        if not isinstance(spec, Decoder) or spec.vocab < self.vocab:
            raise ConfigError(f"pointers are followed by a Decoder with vocab={self.vocab}")

    def batch(self, step: int) -> Batch:
        """inputs (B, size_of + 2), targets (B, 1), and hops (B,), how many each text asks for."""
        drawn = generator(self.seed, step)
        images = torch.rand(self.rows, self.size_of, generator=drawn).argsort(1)
        start = torch.randint(self.size_of, (self.rows, 1), generator=drawn)
        hops = torch.randint(1, 1 + self.hops, (self.rows, 1), generator=drawn)
        end = start
        for hop in range(self.hops):
            end = torch.where(hop < hops, images.gather(1, end), end)
        inputs = torch.cat([images, self.size_of + hops - 1, start], 1)
        return {"inputs": inputs, "targets": end, "hops": hops[:, 0]}

    def size(self, batch: Batch) -> Size:
        return Size(batch["inputs"].numel(), batch["targets"].numel())

    def loss(self, model: Any, batch: Batch) -> Loss:
        return lost(model, batch["targets"], batch["inputs"], logits_at=LAST)

    def unseen(self, number: int) -> Batch:
        """A batch that no training draws."""
        return replace(self, seed=HELD_OUT).batch(number)

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """accuracy: the share of right answers; hops_1, hops_2, ...: of those to questions of so many hops."""
        right, hops = [], []
        for number in range(self.evaluated):
            batch = self.unseen(number)
            with torch.no_grad():
                out = model(batch["inputs"], logits_at=LAST, remember=False)
            right.append((out.logits.argmax(-1) == batch["targets"])[:, 0].double())
            hops.append(batch["hops"])
            tick((number + 1) / self.evaluated)
        each = by_hops(torch.cat(right), torch.cat(hops), self.hops)
        return {"accuracy": torch.cat(right).mean().item()} | {f"hops_{k}": share for k, share in each.items()}


def by_hops(what: Tensor, hops: Tensor, most: int) -> dict[int, float]:
    """The mean of `what` (N,) over texts of 1, 2, ... `most` hops (N,); nan where there is no such text."""
    return {k: what[hops == k].double().mean().item() for k in range(1, 1 + most)}


@dataclass(frozen=True)
class Chaser(Pupil):
    """The size of a decoder that follows pointers, and how it learns: as torch begins and AdamW's own constants are.

    From the house's usual ones (normal weights of 0.02 or 0.1, betas 0.9 and 0.95, decay 0.1, a rate of 2e-3) one hop
    was learned in 2,500 steps, and no second one.
    """

    task: Pointers = Pointers()
    dim: int = 64
    steps: int = 2500
    rate: float = 1e-3

    @property
    def optimizer(self) -> AdamW:
        return AdamW(self.rate, (0.9, 0.999), weight_decay=0.01)

    def spec(self, attention: tuple[tuple[Any, ...], AbsolutePosition | None]) -> Decoder:
        """A decoder of that depth and those positions."""
        blocks, position = attention
        return Decoder("chaser", self.task.vocab, self.dim, blocks, Embedding(position), head=Untied(), init=AsTorch())


TINY = Chaser(Pointers(size_of=4, hops=2, rows=4, evaluated=4), dim=16, steps=2)
