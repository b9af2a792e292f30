"""Random blocks: far keys that nothing but chance chooses, the same in every call."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from formers.attention.patterns.chosen_blocks import NOTHING, ChosenBlocks
from formers.spec.core import Site

NO_MORE = np.iinfo(np.int64).max


class RandomBlocks(ChosenBlocks):
    """Each block of `size` queries, in each head, sees `count` blocks of keys that are drawn at random once and for all.

    Big Bird, Zaheer et al. 2020, arXiv:2007.14062, section 2. What is drawn is a function of these fields alone: of the
    seed, the head and the block, never of a call, nor of how long its text is. Layers that are to draw differently have
    different seeds.

    length: positions that blocks are drawn from, rounded up to whole ones; queries past it see nothing by this rule, and of
    a shorter text they see what is there of the blocks that were drawn. None: without end, which only "earlier" can be.
    among: "all" draws from the whole length; "earlier" from what is before the query's window, which a decoder may see.
    before, after: blocks of the query's window beside its own, first, last: blocks at the two ends of the length. None of
    these is drawn, since other rules show them: `Blocks(size, before, after) | Global(first * size)`. Of what is earlier
    than a window, `after` and `last` say nothing.
    Where fewer blocks than `count` are left, all of them are seen.
    """

    length: int | None = None
    among: Literal["all", "earlier"] = "all"
    before: int = 1
    after: int = 1
    first: int = 1
    last: int = 1
    seed: int = 0

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from super().problems(site)
        if self.length is None and self.among == "all":
            yield "blocks cannot be drawn from all of a length that is not told", "length=4096"
        if self.length is not None and self.length < 1:
            yield f"there are no blocks in a length of {self.length}", "length=4096"
        if min(self.before, self.after, self.first, self.last) < 0:
            least = min(self.before, self.after, self.first, self.last)
            yield f"{least} blocks cannot be left out", "before=1, after=1, first=1, last=1"
        if self.seed < 0:
            yield f"seeds count from 0, and this is {self.seed}", "seed=0"

    @property
    def blocks(self) -> int | None:
        return None if self.length is None else -(-self.length // self.size)

    @property
    def causal(self) -> bool:
        return self.among == "earlier"

    def drawn(self, blocks: int) -> Tensor:
        own = np.arange(blocks)
        end = np.full(blocks, max(self.first, blocks - self.last))
        opens, closes = (np.clip(edge, self.first, end) for edge in (own - self.before, own + self.after + 1))
        if self.among == "earlier":
            opens = closes = end = np.maximum(own - self.before, self.first)
        earlier, later = opens - self.first, end - closes
        table = np.stack([_distinct(self._numbers(head, blocks), earlier + later) for head in range(self.heads)])
        past_window = np.where(table >= earlier[:, None], (closes - opens)[:, None], 0)
        return torch.from_numpy(np.where(table == NOTHING, NOTHING, self.first + table + past_window))

    def _numbers(self, head: int, blocks: int) -> np.ndarray:
        """(blocks, count) random numbers below 2^32. More blocks begin with the same numbers, and a bit generator of NumPy
        never changes what a seed gives."""
        raw = np.random.PCG64(np.random.SeedSequence((self.seed, head))).random_raw(blocks * self.count)
        return (raw >> np.uint64(32)).astype(np.int64).reshape(blocks, self.count)


def _distinct(numbers: np.ndarray, below: np.ndarray) -> np.ndarray:
    """From each row of random numbers (N, C) below 2^32, C different whole numbers below that row's `below` (N,);
    NOTHING where there are no more."""
    chosen = np.empty((len(numbers), 0), dtype=np.int64)
    for i in range(numbers.shape[1]):
        left = below - i
        pick = numbers[:, i] * np.maximum(left, 0) >> 32  # the so-manieth of those that are not chosen yet
        for taken in np.sort(chosen, 1).T:
            pick += taken <= pick
        chosen = np.concatenate([chosen, np.where(left > 0, pick, NO_MORE)[:, None]], 1)
    return np.where(chosen == NO_MORE, NOTHING, chosen)
