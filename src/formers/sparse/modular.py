"""Products module by module: each module of the output sees few modules of the input."""

import torch
from torch import Tensor, nn

from formers.errors import ConfigError
from formers.sparse.multiplicative import Begin, added, begin_bias, module_width


class ModularLinear(nn.Module):
    """y[s] = sum_n x[s + n - width // 2] weight[s, n] + bias[s], the modules s in a circle. arXiv:2111.12763, code.

    weight (S, width * inputs / S, outputs / S): width / S of a dense layer's. No `Init` sets it: it begins by itself;
    both ways of `Begin` agree here but for the bias.
    """

    def __init__(
        self, inputs: int, outputs: int, modules: int, width: int = 1, bias: bool = True, init: Begin = "fan"
    ) -> None:
        """Raises ConfigError unless inputs and outputs split into that many modules, of which width are a part."""
        super().__init__()
        if width < 1 or width % 2 == 0 or width > modules:
            raise ConfigError(f"of {modules} modules in a circle, {width} have no middle one: width=1")
        self.width = width
        seen, made = width * module_width(inputs, modules), module_width(outputs, modules)
        self.weight = nn.Parameter(torch.empty(modules, seen, made))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        bound = (6 / (seen + made)) ** 0.5
        nn.init.uniform_(self.weight, -bound, bound)
        begin_bias(self.bias, init)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., inputs) -> (..., outputs)."""
        modules, half = len(self.weight), self.width // 2
        row = x.unflatten(-1, (modules, -1))
        seen = torch.cat([row.roll(half - n, -2) for n in range(self.width)], -1) if half else row
        return added(torch.einsum("...si,sio->...so", seen, self.weight).flatten(-2), self.bias)

    @property
    def products(self) -> int:
        """Multiplications for one token."""
        return self.weight.numel()
