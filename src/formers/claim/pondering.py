"""A Universal Transformer that follows pointers in a fixed number of steps, and is then taught to halt."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from formers.attention import Attention
from formers.block import Block
from formers.claim.pointer_task import LAST, TINY, Chaser
from formers.depth import ACT, Universal
from formers.feedforward import MLP
from formers.position import Learned

HEADS, STEPS = 4, 6


@dataclass(frozen=True)
class Ponderer:
    """chaser: how it learns to follow pointers, without halting, for with ACT from the start it does not learn the task.
    lessons, rate: updates with halting behind that, and their rate at its peak."""

    chaser: Chaser = Chaser()
    lessons: int = 1000
    rate: float = 1e-3

    def depth(self, halting: ACT | None) -> Universal:
        """One block of the size of the chaser."""
        block = Block((Attention(HEADS), MLP(4 * self.chaser.dim)))
        return Universal(block, STEPS, halting, Learned(self.chaser.task.length), "learned")

    def whole(self, tick: Callable[[], object]) -> nn.Module:
        """It takes all steps for every token."""
        return self.chaser.learn(((self.depth(None),), None), tick)

    def taught(self, halting: ACT | None, whole: nn.Module, tick: Callable[[], object]) -> nn.Module:
        """The same model, halting; None: it goes on without, so that both have learned as long."""
        chaser = replace(self.chaser, steps=self.lessons, rate=self.rate)
        return chaser.learn(((self.depth(halting),), None), tick, whole)

    def taken(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """The steps of each token (N, T) of unseen texts, and how many hops these ask for (N,)."""
        steps, hops = [], []
        for number in range(self.chaser.task.evaluated):
            batch = self.chaser.task.unseen(number)
            with torch.no_grad():
                out: Any = model(batch["inputs"], logits_at=LAST, remember=False)
            steps.append(out.records["steps"][0].double())
            hops.append(batch["hops"])
        return torch.cat(steps), torch.cat(hops)


SMALLEST = Ponderer(TINY, lessons=2)
