"""Gated residuals: a sublayer joins the stream through a gate. GTrXL, Parisotto et al. 2019, arXiv:1910.06764."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.call import Layer
from formers.products import Matrix, products
from formers.residual.rules import PreNormRule, Residual, ResidualRule, Sublayer
from formers.spec.core import Site, Spec


class Gate(Spec):
    """g(x, y): how the stream x (B, T, M) and what a sublayer made of it, y, become the stream behind the sublayer.

    Section 3.2 of the paper; products have no biases but b_g where a gate has one. s is the logistic function.
    """

    def build(self, site: Site) -> nn.Module:
        """A module (x, y) -> (B, T, M)."""
        raise NotImplementedError


class BiasedGate(Gate):
    """bias: where b_g begins, the same for every channel; it is learned from there. Above 0 the gate begins near x."""

    bias: float = 2.0

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if not math.isfinite(self.bias):
            yield f"a gate whose bias begins at {self.bias} learns nothing", "bias=2.0"


class GRUGate(BiasedGate):
    """(1 - z) x + z h, where r = s(W_r y + U_r x), z = s(W_z y + U_z x - b_g), h = tanh(W_g y + U_g (r x)).

    The reset gate meets x before U_g does, z is the share of what is new, and b_g is taken away: `torch.nn.GRUCell` is
    another function in each of the three.
    """

    def build(self, site: Site) -> nn.Module:
        return GRUGateLayer(self, site)


class GRUGateLayer(nn.Module):
    def __init__(self, spec: GRUGate, site: Site) -> None:
        super().__init__()
        self.w_r, self.w_z, self.w_g = (_square(site) for _ in range(3))
        self.u_r, self.u_z, self.u_g = (_square(site) for _ in range(3))
        self.bias = nn.Parameter(torch.full((site.dim,), spec.bias))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        r_by_y, z_by_y, h_by_y = products(y, self.w_r, self.w_z, self.w_g)
        r_by_x, z_by_x = products(x, self.u_r, self.u_z)
        z = torch.sigmoid(z_by_y + z_by_x - self.bias)
        h = torch.tanh(h_by_y + self.u_g(torch.sigmoid(r_by_y + r_by_x) * x))
        return torch.lerp(x, h, z)


class InputGate(Gate):
    """s(W x) x + y."""

    def build(self, site: Site) -> nn.Module:
        return InputGateLayer(site)


class InputGateLayer(nn.Module):
    def __init__(self, site: Site) -> None:
        super().__init__()
        self.w = _square(site)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.sigmoid(self.w(x)) * x + y


class OutputGate(BiasedGate):
    """x + s(W x - b_g) y."""

    def build(self, site: Site) -> nn.Module:
        return OutputGateLayer(self, site)


class OutputGateLayer(nn.Module):
    def __init__(self, spec: BiasedGate, site: Site) -> None:
        super().__init__()
        self.w = _square(site)
        self.bias = nn.Parameter(torch.full((site.dim,), spec.bias))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + torch.sigmoid(self.w(x) - self.bias) * y


class HighwayGate(BiasedGate):
    """f x + (1 - f) y, where f = s(W x + b_g). The bias is added here: it is f that keeps x."""

    def build(self, site: Site) -> nn.Module:
        return HighwayGateLayer(self, site)


class HighwayGateLayer(OutputGateLayer):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.lerp(y, x, torch.sigmoid(self.w(x) + self.bias))


class SigTanhGate(BiasedGate):
    """x + s(W y - b_g) tanh(U y)."""

    def build(self, site: Site) -> nn.Module:
        return SigTanhGateLayer(self, site)


class SigTanhGateLayer(nn.Module):
    def __init__(self, spec: SigTanhGate, site: Site) -> None:
        super().__init__()
        self.w, self.u = (_square(site) for _ in range(2))
        self.bias = nn.Parameter(torch.full((site.dim,), spec.bias))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        gate, new = products(y, self.w, self.u)
        return x + torch.sigmoid(gate - self.bias) * torch.tanh(new)


class Gated(Residual):
    """g(x, relu(f(norm(x)))): arXiv:1910.06764, section 3. Each sublayer has a gate of its own.

    The stream itself meets no norm from the first block to the last (identity-map reordering). gate: None adds, x + y,
    which is the paper's TrXL-I. A sublayer that norms what it reads by itself is given x as it is.
    """

    gate: Gate | None = GRUGate()

    def build(self, site: Site, sublayers: Sequence[Layer]) -> ResidualRule:
        return GatedRule(self, site, sublayers)


class GatedRule(PreNormRule):
    def __init__(self, spec: Gated, site: Site, sublayers: Sequence[Layer]) -> None:
        super().__init__(spec, site, sublayers)
        self.gates = nn.ModuleList(spec.gate.build(site) for _ in sublayers) if spec.gate else None

    def forward(self, x: Tensor, sublayers: Sequence[Sublayer]) -> Tensor:
        for i, (norm, sublayer) in enumerate(zip(self.norms, sublayers, strict=True)):
            y = self.dropout(F.relu(sublayer(norm(x))))
            x = x + y if self.gates is None else self.gates[i](x, y)
        return x


def _square(site: Site) -> nn.Linear:
    return Matrix(site.dim, site.dim, bias=False)
