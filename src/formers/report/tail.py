"""What attention keeps beside keys and values: the last inputs of its convolutions."""

from functools import singledispatch

from formers.attention import Convolutional, MultConv, Projection, SparseQueries
from formers.spec.core import Site


@singledispatch
def tail(projection: Projection, inner: Site) -> int:
    """How many numbers a projection keeps of the tokens before the next one, beside keys and values."""
    return 0


@tail.register
def _mult_conv(projection: MultConv, inner: Site) -> int:
    seen = 1 if projection.values == "none" else 2
    return (projection.length - 1) * inner.dim * (seen + projection.output_looks_back)


@tail.register
def _sparse_queries(projection: SparseQueries, inner: Site) -> int:
    return (projection.length - 1) * inner.dim * (1 + projection.output_looks_back)


@tail.register
def _convolutional(projection: Convolutional, inner: Site) -> int:
    return 2 * (projection.length - 1) * inner.dim
