"""The price of attention with learned spans, and of relative positions of keys."""

from typing import Any

from formers.attention import Attention, SpanAttention
from formers.position import RelativeKeys
from formers.report.price import Price, place_operations, price_of
from formers.report.products import by_matrices
from formers.spec.core import Site


@price_of.register
def _span_attention(part: SpanAttention, module: Any, site: Site, length: int) -> Price:
    """At the longest span: what a run has learned, and saves, is told by `span_table`."""
    plain = Attention(part.heads, head_dim=part.head_dim, pattern=part.pattern_at(site), position=part.position)
    spans = by_matrices(module.spans)
    return price_of(plain, module, site, length) + Price(operations=spans, last=spans)


@place_operations.register
def _relative_keys(position: RelativeKeys, inner: Site, length: int, held: int) -> tuple[float, float]:
    """Every query meets the vectors of all distances that there are."""
    reach = min(position.reach, length)
    each = 2 * inner.heads * inner.head_dim * (reach if inner.causal else 2 * reach - 1)
    return each, each
