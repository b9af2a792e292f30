"""The random blocks that the published code of Big Bird draws, for the checkpoints that were trained with them."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from formers.attention.patterns.chosen_blocks import NOTHING, ChosenBlocks
from formers.spec.core import Site

PLANNED_EARLY = (1024, 3072, 4096)  # tokens in the texts that the paper's experiments read
FOCUS = 1024  # at those, no block behind this many tokens is drawn

Draw = Callable[[Any], np.ndarray]


class PublishedBlocks(ChosenBlocks):
    """The blocks that Google's code and `transformers` draw while training on texts of `length` tokens, by NumPy's
    generator, seeded with the number of the layer. Zaheer et al. 2020, arXiv:2007.14062.

    To go on with their checkpoints; `RandomBlocks` is for new models. What that code draws is not what the paper says:
    at lengths of 1,024, 3,072 and 4,096 nothing behind the first 1,024 tokens, at others nothing behind the first
    2 count + 5 blocks, whatever the length. In evaluation `transformers` draws nothing, and shows each query the first
    block `count` times more, which no pattern says.
    Differs from that code: a block that it draws although a window shows it, and so counts twice, is seen once. That
    happens near the end of texts of 1,024 tokens alone.
    """

    length: int = 4096
    seed: int = 0

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from super().problems(site)
        if self.size > 0 and self.blocks <= 5 + 2 * self.count:
            what = f"a text of {self.length} tokens is {self.blocks} blocks of {self.size}, which that code attends to whole"
            yield what, f"length={(6 + 2 * self.count) * self.size}"
        if self.seed < 0:
            yield f"seeds count from 0, and this is {self.seed}", "seed=0"

    @property
    def blocks(self) -> int:
        return -(-self.length // self.size)

    def drawn(self, blocks: int) -> Tensor:
        draw = np.random.RandomState(self.seed).permutation
        early = blocks * self.size in PLANNED_EARLY
        inner = self._as_in_the_paper(draw) if early else self._among_the_first(draw)
        return functional.pad(torch.from_numpy(np.array(inner)), (0, 0, 1, 1), value=NOTHING)

    def _as_in_the_paper(self, draw: Draw) -> list[list[list[int]]]:
        """(heads, blocks - 2, count), head after head."""
        last = self.blocks - 2
        if 2 * self.size < FOCUS:
            last = min(last, FOCUS // self.size - 1)
        ends = max(3, self.blocks - 3)  # from here on that code forgets to leave the window out

        def of(row: int) -> list[int]:
            allowed = [block for block in range(1, last + 1) if abs(block - row) > 1 or row >= ends]
            return self._first(draw(np.array(allowed)).tolist())

        return [[of(row) for row in range(1, self.blocks - 1)] for _ in range(self.heads)]

    def _among_the_first(self, draw: Draw) -> list[list[list[int]]]:
        """(heads, blocks - 2, count), block after block; the last block draws too, and is dropped."""
        end = 2 * self.count + 5

        def of(row: int) -> list[int]:
            forbidden = {0, end - 1, row - 1, row, row + 1}
            forbidden |= {end - 2} if row == 1 else {1} if row == end - 2 else set()
            return self._first(block for block in draw(end).tolist() if block not in forbidden)

        rows = [[of(row) for _ in range(self.heads)] for row in range(1, self.blocks)]
        return [list(head) for head in zip(*rows[:-1], strict=True)]

    def _first(self, blocks: Iterable[int]) -> list[int]:
        """The first `count` of them, NOTHING where there are fewer."""
        return list(islice(chain(blocks, repeat(NOTHING)), self.count))
