"""A window with gaps in it."""

from collections.abc import Iterator

from torch import Tensor

from formers.attention.pattern import Pattern
from formers.attention.patterns.strided import Strided
from formers.attention.span import BlockSpans
from formers.places import Spots
from formers.spec.core import Site


class Dilated(Pattern):
    """Every `step`-th key on either side, `size` of them, the query's own counted once: nearer than size * step.

    Longformer, Beltagy et al. 2020, arXiv:2004.05150, section 3.1. With step=1 it is `Window(size)`.
    """

    size: int
    step: int

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.size < 1 or self.step < 1:
            yield f"a window of {self.size} keys at every {self.step} positions sees nothing", "size=256, step=2"

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        near = (q.pos - k.pos).abs() < self.size * self.step
        return near & self._columns.visible(q, k, head)

    def reaches(self, q: BlockSpans, k: BlockSpans) -> Tensor:
        reach = self.size * self.step
        near: Tensor = (q.lo - k.hi < reach) & (k.lo - q.hi < reach)
        return near & self._columns.reaches(q, k)

    def query_order(self, at: Spots) -> Tensor | None:
        return self._columns.query_order(at)

    def key_order(self, to: Spots) -> Tensor | None:
        return self._columns.key_order(to)

    @property
    def horizon(self) -> int | None:
        return self.size * self.step

    @property
    def _columns(self) -> Strided:
        return Strided(self.step)
