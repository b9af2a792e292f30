"""Blocks of positions that see one other block: permuted all round, or shifted back where nothing may see the future."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from formers.attention.pattern import Pattern
from formers.attention.span import BlockSpans, Span
from formers.places import Spots
from formers.spec.core import Site


class OneBlock(Pattern):
    """A query sees all keys of one block of `size` positions, which its own block tells."""

    size: int

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.size < 1:
            yield f"blocks of {self.size} positions hold nothing", "size=256"

    def seen_from(self, block: Any) -> Any:
        """The block that the queries of this block see; whole numbers or tensors of them."""
        raise NotImplementedError

    def last_seeing(self, block: Tensor) -> Tensor:
        """The last block whose queries see the keys of this block."""
        raise NotImplementedError

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        return self._met(q) == k.pos // self.size

    def reaches(self, q: BlockSpans, k: BlockSpans) -> Tensor:
        least, most = q.range(self._met)
        return (least <= k.hi // self.size) & (k.lo // self.size <= most)

    def covers(self, q: Span, k: Span) -> Any:
        alone = (q.lo // self.size == q.hi // self.size) & (k.lo // self.size == k.hi // self.size)
        return alone & (self.seen_from(q.lo // self.size) == k.lo // self.size)

    def keeps(self, pos: Tensor, after: Tensor) -> Tensor:
        return after // self.size <= self.last_seeing(pos // self.size)

    def _met(self, at: Spots) -> Tensor:
        met: Tensor = self.seen_from(at.pos // self.size)
        return met


class Permuted(OneBlock):
    """Of `blocks` blocks of `size` positions, block i sees block (i + shift) mod blocks, and no other.

    Blockwise attention, Qiu et al. 2020, arXiv:1911.02972, equation 4, whose permutations are the shifts of one cycle;
    heads that are shifted need others beside them that see their own block, which is shift=0: `ByHead`. The paper cuts
    every text into `blocks` equal blocks; here `size` is given, so that what stands before a place does not change with
    the text's length. In a shorter text the last blocks are short or missing, and a query whose block is missing gets
    nothing (0) from that head; in a longer one each `blocks` blocks are permuted by themselves. For an encoder: under
    `Causal()` some blocks would see nothing, and `Shifted` is the form that does.
    """

    blocks: int
    shift: int = 0

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from super().problems(site)
        if self.blocks < 1:
            yield f"{self.blocks} blocks cannot be permuted", "blocks=2"
        elif not 0 <= self.shift < self.blocks:
            yield (
                f"{self.blocks} blocks are shifted by 0 to {self.blocks - 1}, not by {self.shift}",
                f"shift={self.shift % self.blocks}",
            )

    def seen_from(self, block: Any) -> Any:
        place = block % self.blocks
        return block - place + (place + self.shift) % self.blocks

    def last_seeing(self, block: Tensor) -> Tensor:
        place = block % self.blocks
        return block - place + (place - self.shift) % self.blocks

    @property
    def horizon(self) -> int | None:
        return self.blocks * self.size


class Shifted(OneBlock):
    """A query sees the block of `size` positions that is `back` blocks before its own, and no other; the first `back`
    blocks, which have none there, see their own.

    The permutation of Blockwise attention (arXiv:1911.02972, which has encoders only) for a decoder, as
    `Causal() & Shifted(size, back)`: blocks of one size that are shifted backwards and not all round, so that nothing
    sees the future and decoding goes on for ever.
    """

    back: int

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from super().problems(site)
        if self.back < 0:
            yield f"a block {-self.back} blocks further on is no earlier one", "back=1"

    def seen_from(self, block: Any) -> Any:
        return block - self.back * (block >= self.back)

    def last_seeing(self, block: Tensor) -> Tensor:
        return block + self.back

    @property
    def horizon(self) -> int | None:
        return (1 + self.back) * self.size
