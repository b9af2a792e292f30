"""Queries that are their own keys."""

from collections.abc import Iterator

from torch import Tensor

from formers.attention.own_keys import own_keys
from formers.attention.project import LinearShare, Projection, ProjectionLayer, join_heads, rows_together, split_heads
from formers.init import ResidualLinear
from formers.products import Matrix, products
from formers.spec.core import Site


class SharedQK(Projection):
    """Keys are the queries at length 1. Reformer, Kitaev et al. 2020, arXiv:2001.04451, section 2.

    The score of a pair is then the query's length times a cosine: use it with scale=1.0, and with position=SelfLast(),
    since nothing is more like a query than its own key.
    """

    bias: bool = False

    @property
    def shared(self) -> bool:
        return True

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from own_key_problems(site)

    def build(self, site: Site) -> ProjectionLayer:
        return SharedQKLayer(self, site)


class SharedQKLayer(ProjectionLayer):
    def __init__(self, spec: SharedQK, site: Site) -> None:
        super().__init__()
        self.head_dim = site.head_dim
        wide = site.heads * site.head_dim
        self.qk_proj, self.v_proj = (Matrix(site.dim, wide, bias=spec.bias) for _ in range(2))
        self.out_proj = ResidualLinear(wide, site.dim, bias=spec.bias)

    def queries(self, x: Tensor) -> Tensor:
        return split_heads(self.qk_proj(x), self.head_dim)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.together(x)[1:]

    def together(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, v = (split_heads(t, self.head_dim) for t in products(x, self.qk_proj, self.v_proj))
        return *own_keys(q), v

    def output(self, heads: Tensor) -> Tensor:
        return self.out_proj(join_heads(heads))

    def share(self, heads: slice) -> ProjectionLayer:
        return SharedQKShare(self, heads)


class SharedQKShare(ProjectionLayer):
    """Some heads of a shared projection; it owns no parameters."""

    def __init__(self, whole: SharedQKLayer, heads: slice) -> None:
        super().__init__()
        self.head_dim = whole.head_dim
        self._qk, self._v, self._out = (
            LinearShare(part, heads, whole.head_dim) for part in (whole.qk_proj, whole.v_proj, whole.out_proj)
        )

    def together(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, v = (split_heads(t, self.head_dim) for t in rows_together(x, self._qk, self._v))
        return *own_keys(q), v

    def output(self, heads: Tensor) -> Tensor:
        return self._out.columns(join_heads(heads))


def own_key_problems(site: Site) -> Iterator[tuple[str, str]]:
    """What is wrong with a number of key heads where each query is its own key."""
    if site.kv_heads != site.heads:
        what = f"each of {site.heads} queries is its own key, but there are {site.kv_heads} key heads"
        yield what, "kv_heads=None"
