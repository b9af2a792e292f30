"""What sparse attention does with its heads: nothing, or one of the sparse layers that made them."""

from typing import Any, Literal

from torch import Tensor

from formers.attention.project import ProjectionLayer, join_heads
from formers.init import ResidualLinear
from formers.places import Places
from formers.sparse.convolution import ModuleConv, unbroken
from formers.sparse.multiplicative import Begin, MultiplicativeLinear

SparseOutput = Literal["none", "mult", "conv", "multconv"]


class SparseOut(ProjectionLayer):
    """The output of a projection of one stream: heads side by side, then a multiplicative layer or a convolution or both.

    out_mult, out_conv: the two, None where there is none. out_proj: a dense layer in their place, or None.
    """

    def __init__(
        self,
        kind: SparseOutput | Literal["dense"],
        dim: int,
        modules: int,
        kernel: tuple[int, int],
        init: Begin,
        bias: bool = True,
    ) -> None:
        """kernel: tokens and modules of the convolution. bias: of the dense layer."""
        super().__init__()
        mult, conv = "mult" in kind, "conv" in kind
        self.out_mult = MultiplicativeLinear(dim, dim, modules, init=init) if mult else None
        self.out_conv = ModuleConv(dim, dim, modules, *kernel, init=init) if conv else None
        self.out_proj = ResidualLinear(dim, dim, bias=bias) if kind == "dense" else None
        self.output_looks_back = conv

    def output(self, heads: Tensor) -> Tensor:
        """Of outputs that do not look back."""
        y = join_heads(heads)
        for layer in (self.out_mult, self.out_proj):
            y = y if layer is None else layer(y)
        return y

    def finish(self, heads: Tensor, at: Places, past: Any) -> tuple[Tensor, Any]:
        y = self.output(heads)
        if self.out_conv is None:
            return y, None
        met = unbroken(y, at, past, self.out_conv.back)
        return met.put_back(self.out_conv(met.rows)), met.tail
