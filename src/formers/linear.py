"""One matrix for every token, in the depth itself: nothing of the stream is carried past it."""

from typing import Any

from torch import Tensor, nn

from formers.call import Call, Layer, Out
from formers.products import Matrix
from formers.spec.core import Site


class Linear(Layer):
    """y = W x + b, (B, T, M) to (B, T, M), without a residual.

    Between two reversible stacks it is the point where Terraformer, arXiv:2111.12763, forgets: the first stack averages
    its streams, and both streams of the second begin as what is made of that. What rounding has done to rebuilt inputs ends
    here too. Behind a reversible encoder it comes before the norm.
    """

    bias: bool = True

    def build(self, site: Site) -> nn.Module:
        return LinearLayer(self, site)


class LinearLayer(nn.Module):
    def __init__(self, spec: Linear, site: Site) -> None:
        super().__init__()
        self.proj = Matrix(site.dim, site.dim, bias=spec.bias)

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        return Out(self.proj(x))

    def skip(self, x: Tensor, call: Call, state: Any = None) -> None:
        """Nothing is remembered."""
