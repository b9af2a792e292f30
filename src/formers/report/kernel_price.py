"""The price of attention by features."""

from typing import Any

from torch import nn

from formers.attention import KernelAttention, KernelCrossAttention
from formers.attention.kernel.sums import CHUNK
from formers.model import parameter_count
from formers.report.price import Price, price_of
from formers.report.products import by_matrices
from formers.report.quantity import NUMBER
from formers.report.tail import tail
from formers.spec.core import Site


@price_of.register
def _kernel(part: KernelAttention, module: Any, site: Site, length: int) -> Price:
    """A decoder's query meets the keys of its chunk, all of them masked or not; its sums are added to and read."""
    inner, products = part.inside(site), by_matrices(module)
    sums, told = inner.heads * part.features.count * (inner.head_dim + 1), 2 * _by_directions(module, inner)
    pair = 2 * inner.heads * (part.features.count + inner.head_dim + 1)
    met, met_last = (min(CHUNK, length), 1) if site.causal else (0, 0)
    parameters = parameter_count(module)
    return Price(
        parameters,
        products + told + 4 * sums + pair * met,
        products + told + 4 * sums + pair * met_last,
        NUMBER * (parameters + _numbers(module, inner)),
        0,
        NUMBER * (sums + 2 * inner.heads + tail(part.projection, inner)) if site.causal else 0,
    )


@price_of.register
def _kernel_cross(part: KernelCrossAttention, module: Any, site: Site, length: int) -> Price:
    """The source is taken to be as long as the target; it is summed over once, and the sums are kept."""
    inner, products, parameters = part.inside(site), by_matrices(module), parameter_count(module)
    sums, told = inner.heads * part.features.count * (inner.head_dim + 1), _by_directions(module, inner)
    made_once = nn.ModuleList([module.projection.k_proj, module.projection.v_proj])
    return Price(
        parameters,
        products + 2 * told + 4 * sums,
        products - by_matrices(made_once) + told + 2 * sums,
        NUMBER * (parameters - parameter_count(made_once) + _numbers(module, inner)),
        0,
        NUMBER * (sums + 2 * inner.heads + tail(part.projection, inner)),
    )


def _numbers(module: Any, inner: Site) -> int:
    """The directions of a call."""
    count: int = module.features.drawn.count
    return inner.heads * count * inner.head_dim


def _by_directions(module: Any, inner: Site) -> int:
    """Operations of making a token's queries, or its keys, into features."""
    return 2 * _numbers(module, inner)
