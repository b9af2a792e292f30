"""Local attention on images, of Image Transformer: query blocks that see their own block and what is near it.

Parmar et al. 2018, arXiv:1802.05751, section 3.1. The sequence is in the order of generation, and both patterns look ahead
in the query's own block: a decoder's is `Causal() & ...`. A place is that of the pixel which is predicted there; what a
decoder reads there is the token before it.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from formers.attention.pattern import Pattern
from formers.attention.span import BlockSpans, Span
from formers.canvas import Canvas
from formers.places import Spots
from formers.spec.core import Site


class Local1D(Pattern):
    """A query sees its own block of `size` tokens, and the `memory` tokens before that block.

    In raster order this is the paper's 1D local attention: the window that a query sees is memory + 1 to memory + size
    tokens, by its place in the block. In any order it needs no image.
    """

    size: int
    memory: int

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.size < 1:
            yield f"blocks of {self.size} tokens hold nothing", "size=256"
        if self.memory < 0:
            yield f"there cannot be {self.memory} tokens before a block", "memory=256"

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        begin = q.pos // self.size * self.size
        return (k.pos >= begin - self.memory) & (k.pos < begin + self.size)

    def reaches(self, q: BlockSpans, k: BlockSpans) -> Tensor:
        reaches: Tensor = k.hi >= q.lo // self.size * self.size - self.memory
        return reaches & (k.lo < (q.hi // self.size + 1) * self.size)

    def covers(self, q: Span, k: Span) -> Any:
        return (k.lo >= q.hi // self.size * self.size - self.memory) & (k.hi < (q.lo // self.size + 1) * self.size)

    def keeps(self, pos: Tensor, after: Tensor) -> Tensor:
        return after // self.size <= (pos + self.memory) // self.size

    @property
    def horizon(self) -> int | None:
        return self.size + self.memory


class Local2D(Pattern):
    """A query sees its own block of the canvas, and a flange of `above` rows over it and `beside` columns on either side.

    The flange has the width of the block and its own on both sides, so that it holds pixels to the upper right too. Under
    `Causal()` those beside and below are seen where they were generated earlier, as those to the left were. Images that
    follow each other in one row do not see each other.
    Differs from the authors' code: that shifts what it reads by one token within each block, so that nothing sees the last
    of a block; and here blocks need not divide the image.
    """

    canvas: Canvas
    above: int
    beside: int

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.canvas.block is None:
            yield f"{self.canvas!r} is generated pixel by pixel, and has no blocks to attend from", "block=(8, 8)"
        if self.above < 0 or self.beside < 0:
            yield f"a flange cannot be {self.above} rows high and {self.beside} columns wide", "above=8, beside=8"

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        top, left, row, column = self._top(q), self._left(q), self._row(k), self._column(k)
        height, width = self._block
        seen = (self._image(q) == self._image(k)) & (row >= top - self.above) & (row < top + height)
        return seen & (column >= left - self.beside) & (column < left + width + self.beside)

    def reaches(self, q: BlockSpans, k: BlockSpans) -> Tensor:
        (height, width), image, other = self._block, q.range(self._image), k.range(self._image)
        top, left, row, column = q.range(self._top), q.range(self._left), k.range(self._row), k.range(self._column)
        reaches = (other[1] >= image[0]) & (other[0] <= image[1])
        reaches = reaches & (row[1] >= top[0] - self.above) & (row[0] < top[1] + height)
        return reaches & (column[1] >= left[0] - self.beside) & (column[0] < left[1] + width + self.beside)

    def covers(self, q: Span, k: Span) -> Any:
        if not isinstance(q, BlockSpans) or not isinstance(k, BlockSpans):
            return False
        (height, width), image, other = self._block, q.range(self._image), k.range(self._image)
        top, left, row, column = q.range(self._top), q.range(self._left), k.range(self._row), k.range(self._column)
        covers = (other[0] == image[1]) & (other[1] == image[0])
        covers = covers & (row[0] >= top[1] - self.above) & (row[1] < top[0] + height)
        return covers & (column[0] >= left[1] - self.beside) & (column[1] < left[0] + width + self.beside)

    def keeps(self, pos: Tensor, after: Tensor) -> Tensor:
        length = self.canvas.length
        return after <= pos // length * length + self._last_seeing(pos.device)[pos % length]

    @property
    def horizon(self) -> int | None:
        """From the last query of a block to the first key of its flange, at the most."""
        at = self.canvas.tables()
        row, column = (at.top - self.above).clamp(min=0), (at.left - self.beside).clamp(min=0)
        first = at.place[(row * self.canvas.width + column) * self.canvas.channels]
        return int((at.last - first).max()) + 1

    @property
    def _block(self) -> tuple[int, int]:
        assert self.canvas.block is not None, "refused by `problems`"
        return self.canvas.block

    def _last_seeing(self, device: torch.device) -> Tensor:
        """The last query of the image that sees each key: it ends the block furthest to the lower right that reaches it."""
        at, (height, width), canvas = self.canvas.tables(device), self._block, self.canvas
        row = ((at.row + self.above) // height * height).clamp(max=(canvas.height - 1) // height * height)
        column = ((at.column + self.beside) // width * width).clamp(max=(canvas.width - 1) // width * width)
        return at.last[at.place[(row * canvas.width + column) * canvas.channels]]

    def _top(self, of: Spots) -> Tensor:
        return self._told(of, "top")

    def _left(self, of: Spots) -> Tensor:
        return self._told(of, "left")

    def _row(self, of: Spots) -> Tensor:
        return self._told(of, "row")

    def _column(self, of: Spots) -> Tensor:
        return self._told(of, "column")

    def _image(self, of: Spots) -> Tensor:
        return of.pos // self.canvas.length

    def _told(self, of: Spots, name: Literal["top", "left", "row", "column"]) -> Tensor:
        table: Tensor = getattr(self.canvas.tables(of.pos.device), name)
        return table[of.pos % self.canvas.length]
