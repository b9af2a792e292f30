"""Segments and the memory before them: Transformer-XL, Dai et al. 2019, arXiv:1901.02860."""

from formers.attention.patterns.image_blocks import Local1D


class Segments(Local1D):
    """A query sees its own segment of `size` positions and the `memory` positions before the segment.

    `Causal() & Segments(n, m)` is what the recurrence of Transformer-XL shows, where each layer of a segment attends to its
    own inputs and to the last m that it had before: the very pairs of one-dimensional local attention. A segment is
    counted by position, and not by where calls end, so a query sees from m + 1 to m + n keys, by its place in the segment.
    """

    def remembering(self, memory: int) -> "Segments":
        """The same with another memory: see `formers.carried.remembering`."""
        return Segments(self.size, memory)
