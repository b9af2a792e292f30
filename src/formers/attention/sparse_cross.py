"""Cross-attention with sparse queries."""

from collections.abc import Iterator
from typing import Any, Literal

from torch import Tensor

from formers.attention.mult_conv import kernel_problems, module_problems
from formers.attention.project import Projection, ProjectionLayer, split_heads
from formers.attention.sparse_output import SparseOut, SparseOutput
from formers.places import Places
from formers.products import Matrix
from formers.sparse.convolution import ModuleConv, unbroken
from formers.sparse.multiplicative import Begin, MultiplicativeLinear
from formers.spec.core import Site


class SparseQueries(Projection):
    """Queries by a multiplicative layer and a convolution, as in MultConv; keys and values dense, being made once.

    For cross-attention. Scaling Transformers, Jaszczur et al. 2021, arXiv:2111.12763. modules, length, width, init: as in
    MultConv. output: as there, or "dense". bias: of the dense layers.
    """

    modules: int | None = None
    length: int = 3
    width: int = 3
    output: SparseOutput | Literal["dense"] = "none"
    bias: bool = True
    init: Begin = "fan"

    @property
    def within(self) -> bool:
        return False

    @property
    def output_looks_back(self) -> bool:
        return "conv" in self.output

    def splits(self, site: Site) -> bool:
        return False

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if site.heads * site.head_dim != site.dim:
            what = f"{site.heads} heads of {site.head_dim} numbers are not the {site.dim} of the stream"
            yield what, "head_dim=None"
        yield from module_problems(self.modules, site.dim, site)
        yield from kernel_problems(self.length, self.width)

    def build(self, site: Site) -> ProjectionLayer:
        return SparseQueriesLayer(self, site)


class SparseQueriesLayer(SparseOut):
    """mult and q_conv; k_proj and v_proj; out_mult, out_conv and out_proj, None where there is none."""

    looks_back = True

    def __init__(self, spec: SparseQueries, site: Site) -> None:
        dim, modules, kernel = site.dim, spec.modules or site.heads, (spec.length, spec.width)
        super().__init__(spec.output, dim, modules, kernel, spec.init, bias=spec.bias)
        self.head_dim = site.head_dim
        self.mult = MultiplicativeLinear(dim, dim, modules, init=spec.init)
        self.q_conv = ModuleConv(dim, dim, modules, *kernel, init=spec.init)
        narrow = site.kv_heads * site.head_dim
        self.k_proj, self.v_proj = (Matrix(dim, narrow, bias=spec.bias) for _ in range(2))

    def prepare(self, x: Tensor, at: Places, past: Any) -> tuple[Tensor, Any]:
        met = unbroken(self.mult(x), at, past, self.q_conv.back)
        return met.put_back(self.q_conv(met.rows)), met.tail

    def queries(self, x: Tensor) -> Tensor:
        """x (B, T, M) as `prepare` made it."""
        return split_heads(x, self.head_dim)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, S, M) is an encoder's output, as it is."""
        return split_heads(self.k_proj(x), self.head_dim), split_heads(self.v_proj(x), self.head_dim)
