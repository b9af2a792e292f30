"""The price of attention that also looks up the nearest of many past keys."""

from typing import Any

from formers.attention import Attention
from formers.attention.memorizing import MemorizingAttention
from formers.report.price import Price, price_of
from formers.report.quantity import NUMBER
from formers.spec.core import Site


@price_of.register
def _memorizing(part: MemorizingAttention, module: Any, site: Site, length: int) -> Price:
    """Every key that may be retrieved is scored; that the best of a large memory are scored again is left out."""
    plain = Attention(part.heads, head_dim=part.head_dim, pattern=part.pattern_at(site), position=part.position)
    inner = part.inside(site)
    width, segment, memory = inner.heads * inner.head_dim, part.segment, part.memory
    scored = [min(memory, place // segment * segment) for place in range(length)]
    met = 4 * width * part.top_k if length > segment else 0
    token = NUMBER * 2 * width
    remembers = Price(
        operations=2 * width * sum(scored) / length + met,
        last=2 * width * scored[-1] + met,
        token=token,
        state=token * min(length, length % segment + memory),
    )
    return price_of(plain, module, site, length) + remembers
