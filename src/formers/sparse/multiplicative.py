"""Products with a matrix that two thin ones make: few weights to read, and yet every output sees every input."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from formers.errors import ConfigError
from formers.parts import pieces
from formers.replay import Autocast

# How a sparse layer's parameters begin. fan: the product as a whole as Glorot and Bengio 2010 have it, biases 0.
# published: each factor by itself, as trax has it, with biases of N(0, 1e-6).
Begin = Literal["fan", "published"]

GATE_STD = 0.5  # of a multiplicative layer's gate, in either way to begin
BIAS_STD = 1e-6


class MultiplicativeLinear(nn.Module):
    """y[s * M + m] = sum_i x[i] gate[s, i] mix[i, m] + bias[s * M + m]. Jaszczur et al. 2021, arXiv:2111.12763.

    S modules of M = outputs / S numbers each: inputs * (S + M) weights instead of inputs * outputs, and as many
    operations. It can be set to any permutation of its inputs. No `Init` sets it: it begins by itself, see `Begin`.
    """

    def __init__(self, inputs: int, outputs: int, modules: int, bias: bool = True, init: Begin = "fan") -> None:
        """Raises ConfigError unless the outputs split into that many modules."""
        super().__init__()
        width = module_width(outputs, modules)
        self.gate = nn.Parameter(torch.empty(modules, inputs))
        self.mix = nn.Parameter(torch.empty(inputs, width))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        nn.init.normal_(self.gate, std=GATE_STD)
        if init == "published":
            nn.init.xavier_uniform_(self.mix)
        else:
            glorot = (2 / (inputs + outputs)) ** 0.5
            nn.init.uniform_(self.mix, -(3**0.5) * glorot / GATE_STD, 3**0.5 * glorot / GATE_STD)
        begin_bias(self.bias, init)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., inputs) -> (..., outputs)."""
        return added(multiply(x, self.gate, self.mix), self.bias)

    def rows(self, x: Tensor, outputs: slice) -> Tensor:
        """x (..., inputs) -> some of the outputs alone, those of whole modules."""
        width = self.mix.shape[1]
        gate = self.gate[outputs.start // width : outputs.stop // width]
        return added(multiply(x, gate, self.mix), None if self.bias is None else self.bias[outputs])

    def columns(self, x: Tensor, inputs: slice) -> Tensor:
        """Some of the inputs (..., I) -> what they add to the outputs (..., outputs); the first bring the bias."""
        bias = self.bias if inputs.start == 0 else None
        return added(multiply(x, self.gate[:, inputs], self.mix[inputs]), bias)

    @property
    def products(self) -> int:
        """Multiplications of its matrix products for one token: those of a dense layer."""
        return len(self.gate) * self.mix.numel()


def multiply(x: Tensor, gate: Tensor, mix: Tensor) -> Tensor:
    """x (..., I) times the matrix gate[s, i] * mix[i, m] -> (..., S * M); gate (S, I), mix (I, M).

    Few tokens are gated for each module; for many the matrix is made instead, in pieces no larger than x.
    """
    if x.numel() < mix.numel():
        return ((x.unsqueeze(-2) * gate) @ mix).flatten(-2)
    autocast = Autocast(x.device)
    x, gate, mix = (autocast.lowered(t) for t in (x, gate, mix))
    with autocast.off():
        y: Tensor = _Multiply.apply(x.flatten(0, -2), gate, mix)
    return y.unflatten(0, x.shape[:-1])


class _Multiply(torch.autograd.Function):
    """x (N, I), gate (S, I), mix (I, M) -> (N, S * M). The matrix is made again in the backward pass, not kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, mix: Tensor) -> Tensor:
        ctx.save_for_backward(x, gate, mix)
        products = [x @ matrix(gate[some], mix) for some in at_once(x, gate, mix)]
        return products[0] if len(products) == 1 else torch.cat(products, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, gate, mix = ctx.saved_tensors
        slope_x, slope_gate, slope_mix = torch.zeros_like(x), torch.empty_like(gate), torch.zeros_like(mix)
        wanted, learned, width = ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:]), mix.shape[1]
        for some in at_once(x, gate, mix):
            part = grad[:, some.start * width : some.stop * width]
            if wanted:
                slope_x.addmm_(part, matrix(gate[some], mix).T)
            if learned:
                of_matrix = (x.T @ part).unflatten(1, (-1, width))
                slope_gate[some] = torch.einsum("ism,im->si", of_matrix, mix)
                slope_mix += torch.einsum("ism,si->im", of_matrix, gate[some])
        return slope_x if wanted else None, slope_gate if learned else None, slope_mix if learned else None


def matrix(gate: Tensor, mix: Tensor) -> Tensor:
    """gate (S, I), mix (I, M) -> (I, S * M)."""
    return (gate.T[:, :, None] * mix[:, None]).flatten(1)


def at_once(x: Tensor, gate: Tensor, mix: Tensor) -> list[slice]:
    """The modules in pieces whose matrix (I, S' * M) is no larger than x (N, I)."""
    return pieces(len(gate), max(1, len(x) // mix.shape[1]))


def added(y: Tensor, bias: Tensor | None) -> Tensor:
    """y with its bias, in the precision that its product came out in."""
    return y if bias is None else y + bias.to(y.dtype)


def begin_bias(bias: Tensor | None, init: Begin) -> None:
    if bias is not None:
        nn.init.normal_(bias, std=BIAS_STD) if init == "published" else nn.init.zeros_(bias)


def module_width(numbers: int, modules: int) -> int:
    """The numbers that each of the modules has. Raises ConfigError where they do not split evenly."""
    if modules < 1 or numbers % modules:
        near = nearest_divisor(numbers, modules)
        raise ConfigError(f"{numbers} numbers do not split into {modules} modules: {near} modules")
    return numbers // modules


def nearest_divisor(number: int, wanted: int) -> int:
    """The divisor of a number that is nearest to the one wanted."""
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: abs(d - wanted))
