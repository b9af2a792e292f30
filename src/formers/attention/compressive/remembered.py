"""What the queries of a segment see: what Transformer-XL shows, and the compressed slots that stand before that."""

import torch
from torch import Tensor

from formers.attention.pattern import Pattern
from formers.attention.patterns.segments import Segments
from formers.attention.span import BlockSpans
from formers.places import Places, Spots

SEGMENT = "compressed for segment"  # the mark of keys: which segment a slot stands before, TOKEN at tokens
TOKEN = -1


class Remembered(Pattern):
    """Of tokens, those that `recent` shows; of slots, at most `compressed`, those that are marked with the query's segment.

    Where keys have no such mark, they are tokens.
    """

    recent: Segments
    compressed: int

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        recent, before = self.recent.visible(q, k, head), k.marks.get(SEGMENT)
        return recent if before is None else torch.where(before == TOKEN, recent, before == q.pos // self.recent.size)

    def reaches(self, q: BlockSpans, k: BlockSpans) -> Tensor:
        recent, segment = self.recent.reaches(q, k), self.recent.size
        try:
            least, most = k.range(lambda at: at.marks[SEGMENT])
        except KeyError:
            return recent
        slots: Tensor = (most >= q.lo // segment) & (least <= q.hi // segment) & (most > TOKEN)
        return (recent & (least == TOKEN)) | slots

    def keeps(self, pos: Tensor, after: Tensor) -> Tensor:
        """Of tokens; slots are kept by their queue."""
        return self.recent.keeps(pos, after)

    @property
    def horizon(self) -> int | None:
        return self.recent.size + self.recent.memory + self.compressed


def placed(pos: Tensor, real: Tensor | None, segment: Tensor) -> Places:
    """Places (1 or B, S) of keys: slots, which stand before `segment` (1 or B, n), and then tokens."""
    rows, slots = len(segment), segment.shape[1]
    tokens = segment.new_full((rows, pos.shape[1] - slots), TOKEN)
    return Places(pos, real, {SEGMENT: torch.cat([segment, tokens], 1)})
