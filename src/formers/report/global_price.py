"""The price of attention with global tokens that have projections of their own."""

from typing import Any

from torch import nn

from formers.attention import Attention, LongformerAttention
from formers.report.price import Price, price_of
from formers.report.products import by_matrices
from formers.spec.core import Site


@price_of.register
def _longformer(part: LongformerAttention, module: Any, site: Site, length: int) -> Price:
    """With one global token in a text: a key more for every query, and keys and values of all tokens for its own."""
    local = Attention(
        part.heads,
        head_dim=part.head_dim,
        pattern=part.pattern,
        position=part.position,
        projection=part.projection,
    )
    inner = part.inside(site)
    pairs = 2 * 4 * inner.heads * inner.head_dim  # as many in its row as in its column
    own = by_matrices(nn.ModuleList([module.k_global, module.v_global])) + by_matrices(module.q_global) / length
    return price_of(local, module, site, length) + Price(operations=pairs + own, last=pairs + own)
