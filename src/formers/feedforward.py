"""Feed-forward sublayers: each token by itself."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.call import Call, Layer, Out
from formers.init import ResidualLinear
from formers.parts import Part, in_parts, pieces
from formers.products import Matrix, products
from formers.residual import dropout_problems
from formers.spec.core import Site

Activation = Literal["relu", "gelu", "gelu_tanh", "gelu_sigmoid", "silu"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_sigmoid": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": F.silu,
}


class FeedForward(Layer):
    """hidden: how many units; activation: gelu is the exact (erf) form, gelu_tanh and gelu_sigmoid, x sigmoid(1.702 x),
    the two approximations of Hendrycks and Gimpel 2016, arXiv:1606.08415: GPT-2's and that of Sparse Transformers.

    dropout: rate at which hidden units are dropped. chunk: tokens of each row worked on at a time, so that the hidden
    units of the others need not exist; they are recomputed in the backward pass. None: all at once.
    """

    hidden: int
    activation: Activation = "gelu"
    bias: bool = True
    dropout: float = 0.0
    chunk: int | None = None

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.hidden < 1:
            yield f"a feed-forward of {self.hidden} units computes nothing", f"hidden={4 * site.dim}"
        yield from dropout_problems(self.dropout)
        if self.chunk is not None and self.chunk < 1:
            yield f"chunks of {self.chunk} tokens never come to an end", "chunk=1024"


class MLP(FeedForward):
    """down(activation(up(x))), Vaswani et al. 2017, arXiv:1706.03762, section 3.3."""

    def build(self, site: Site) -> nn.Module:
        return MLPLayer(self, site.dim)


class FeedForwardLayer(nn.Module):
    down: ResidualLinear

    def __init__(self, spec: FeedForward) -> None:
        super().__init__()
        self.spec = spec
        self.activation = ACTIVATIONS[spec.activation]

    def units(self, x: Tensor) -> Tensor:
        """x (B, T, M) -> the hidden units (B, T, F)."""
        raise NotImplementedError

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        chunk = self.spec.chunk
        if chunk is None or x.shape[1] <= chunk:
            return self._at_once(x)
        return in_parts([Part(rows, self._at_once) for rows in pieces(x.shape[1], chunk)], x)

    def parts(self, call: Call, choices: Any = None) -> list[Part] | None:
        """The chunks, each without recomputing."""
        chunk = self.spec.chunk
        return None if chunk is None else [Part(rows, self._at_once) for rows in pieces(call.at.length, chunk)]

    def _at_once(self, x: Tensor) -> Out:
        hidden, rate = self.units(x), self.spec.dropout
        return Out(self.down(F.dropout(hidden, rate, self.training) if rate else hidden))

    def skip(self, x: Tensor, call: Call, state: Any = None) -> None:
        """Nothing is remembered."""


class MLPLayer(FeedForwardLayer):
    def __init__(self, spec: MLP, dim: int) -> None:
        super().__init__(spec)
        self.up = Matrix(dim, spec.hidden, bias=spec.bias)
        self.down = ResidualLinear(spec.hidden, dim, bias=spec.bias)

    def units(self, x: Tensor) -> Tensor:
        return self.activation(self.up(x))


class GLU(FeedForward):
    """down(activation(gate(x)) * up(x)), Shazeer 2020, arXiv:2002.05202; SwiGLU with "silu", as in LLaMA."""

    activation: Activation = "silu"
    bias: bool = False

    def build(self, site: Site) -> nn.Module:
        return GLULayer(self, site.dim)


class GLULayer(FeedForwardLayer):
    def __init__(self, spec: GLU, dim: int) -> None:
        super().__init__(spec)
        self.gate = Matrix(dim, spec.hidden, bias=spec.bias)
        self.up = Matrix(dim, spec.hidden, bias=spec.bias)
        self.down = ResidualLinear(spec.hidden, dim, bias=spec.bias)

    def units(self, x: Tensor) -> Tensor:
        gate, up = products(x, self.gate, self.up)
        return self.activation(gate) * up
