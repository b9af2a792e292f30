"""The price of attention to slots, and of Fourier mixing."""

import math
from typing import Any

from torch import nn

from formers.attention import ConvolvedSlots, Linformer, LinformerCross, PooledSlots
from formers.attention.low_rank.compress import Compression
from formers.attention.low_rank.linformer import SlotAttention
from formers.fourier import Fourier
from formers.model import parameter_count
from formers.report.price import Price, price_of
from formers.report.products import by_matrices
from formers.report.quantity import NUMBER
from formers.spec.core import Site


@price_of.register
def _linformer(part: Linformer, module: Any, site: Site, length: int) -> Price:
    made, pairs = _slots_made(part, module, site, length), _pairs(part, site, length)
    each = by_matrices(nn.ModuleList([module.projection.q_proj, module.projection.out_proj]))
    return Price(parameter_count(module), each + made / length + pairs)


@price_of.register
def _linformer_cross(part: LinformerCross, module: Any, site: Site, length: int) -> Price:
    """The source is taken to be as long as the target; its slots are made once, and kept."""
    made, pairs = _slots_made(part, module, site, length), _pairs(part, site, length)
    asks = nn.ModuleList([module.projection.q_proj, module.projection.out_proj])
    each, inner = by_matrices(asks), part.inside(site)
    kept = NUMBER * 2 * inner.heads * inner.head_dim * _filled(part, length)
    return Price(
        parameter_count(module), each + made / length + pairs, each + pairs, NUMBER * parameter_count(asks), 0, kept
    )


@price_of.register
def _fourier(part: Fourier, module: Any, site: Site, length: int) -> Price:
    """5 n log2(n) operations to a complex transform of n numbers, by convention; half of that, for the numbers are real."""
    return Price(0, 2.5 * site.dim * (math.log2(site.dim) + math.log2(length)))


def _slots_made(part: SlotAttention, module: Any, site: Site, length: int) -> float:
    """Operations for the keys and values of all slots."""
    inner, slots = part.inside(site), _filled(part, length)
    width, projected = inner.heads * inner.head_dim, slots if module.compressor.linear else length
    products = by_matrices(nn.ModuleList([module.projection.k_proj, module.projection.v_proj]))
    return products * projected + _mixing(part.compress, inner, width, length, slots)


def _mixing(compress: Compression, inner: Site, width: int, length: int, slots: int) -> float:
    """Operations that bring tokens into slots."""
    if isinstance(compress, PooledSlots):
        return 0.0
    if isinstance(compress, ConvolvedSlots):
        return 2.0 * 2 * width * length
    share = getattr(compress, "share", "none")
    channels = {"headwise": 2 * inner.dim, "keys_values": inner.dim}.get(share, 2 * width)
    return 2.0 * slots * length * channels


def _pairs(part: SlotAttention, site: Site, length: int) -> float:
    inner = part.inside(site)
    return 4.0 * inner.heads * inner.head_dim * _filled(part, length)


def _filled(part: SlotAttention, length: int) -> int:
    """Slots that a text of that length fills: all of them, where slots are no windows."""
    if isinstance(part.compress, (PooledSlots, ConvolvedSlots)):
        return min(part.slots, -(-length * part.slots // part.length))
    return part.slots
