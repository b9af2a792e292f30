"""Feed-forward sublayers: each token by itself."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from formers.call import Call, Layer, Out
from formers.init import ResidualLinear
from formers.residual import dropout_problems
from formers.spec.core import Site

Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


class FeedForward(Layer):
    """hidden: how many units; activation: gelu is the exact (erf) form, gelu_tanh GPT-2's approximation of it.

    dropout: rate at which hidden units are dropped.
    """

    hidden: int
    activation: Activation = "gelu"
    bias: bool = True
    dropout: float = 0.0

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.hidden < 1:
            yield f"a feed-forward of {self.hidden} units computes nothing", f"hidden={4 * site.dim}"
        yield from dropout_problems(self.dropout)


class MLP(FeedForward):
    """down(activation(up(x))), Vaswani et al. 2017, arXiv:1706.03762, section 3.3."""

    def build(self, site: Site) -> nn.Module:
        return MLPLayer(self, site.dim)


class FeedForwardLayer(nn.Module):
    def __init__(self, spec: FeedForward) -> None:
        super().__init__()
        self.spec = spec

    def skip(self, x: Tensor, call: Call, state: Any = None) -> None:
        """Nothing is remembered."""


class MLPLayer(FeedForwardLayer):
    def __init__(self, spec: MLP, dim: int) -> None:
        super().__init__(spec)
        self.up = nn.Linear(dim, spec.hidden, bias=spec.bias)
        self.down = ResidualLinear(spec.hidden, dim, bias=spec.bias)
        self.activation = ACTIVATIONS[spec.activation]
        self.dropout = spec.dropout

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        hidden = self.activation(self.up(x))
        return Out(self.down(F.dropout(hidden, self.dropout, self.training) if self.dropout else hidden))


class GLU(FeedForward):
    """down(activation(gate(x)) * up(x)), Shazeer 2020, arXiv:2002.05202; SwiGLU with "silu", as in LLaMA."""

    activation: Activation = "silu"
    bias: bool = False

    def build(self, site: Site) -> nn.Module:
        return GLULayer(self, site.dim)


class GLULayer(FeedForwardLayer):
    def __init__(self, spec: GLU, dim: int) -> None:
        super().__init__(spec)
        self.gate = nn.Linear(dim, spec.hidden, bias=spec.bias)
        self.up = nn.Linear(dim, spec.hidden, bias=spec.bias)
        self.down = ResidualLinear(spec.hidden, dim, bias=spec.bias)
        self.activation = ACTIVATIONS[spec.activation]
        self.dropout = spec.dropout

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        hidden = self.activation(self.gate(x)) * self.up(x)
        return Out(self.down(F.dropout(hidden, self.dropout, self.training) if self.dropout else hidden))
