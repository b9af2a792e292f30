"""Gates are the paper's equations, number by number, and a large bias makes a block the identity."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from formers import (
    MLP,
    Attention,
    Block,
    ConfigError,
    Decoder,
    Gated,
    GRUGate,
    HighwayGate,
    InputGate,
    LayerNorm,
    OutputGate,
    SigTanhGate,
    stack,
)
from formers.call import Call, Layer, Out
from formers.places import Places
from formers.spec.core import Site

DIM = 5


@pytest.fixture(autouse=True)
def float64() -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def built(spec: Any) -> nn.Module:
    torch.manual_seed(0)
    gate = spec.build(Site(dim=DIM))
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.add_(torch.randn_like(parameter))
    return gate.requires_grad_(False)


def s(number: float) -> float:
    return 1 / (1 + math.exp(-number))


def row(linear: nn.Linear, i: int, v: list[float]) -> float:
    return sum(w * x for w, x in zip(linear.weight[i].tolist(), v, strict=True))


def gru(gate: Any, x: list[float], y: list[float]) -> list[float]:
    r = [s(row(gate.w_r, i, y) + row(gate.u_r, i, x)) for i in range(DIM)]
    reset = [a * b for a, b in zip(r, x, strict=True)]
    out = []
    for i in range(DIM):
        z = s(row(gate.w_z, i, y) + row(gate.u_z, i, x) - float(gate.bias[i]))
        h = math.tanh(row(gate.w_g, i, y) + row(gate.u_g, i, reset))
        out.append((1 - z) * x[i] + z * h)
    return out


def highway(gate: Any, x: list[float], y: list[float]) -> list[float]:
    f = [s(row(gate.w, i, x) + float(gate.bias[i])) for i in range(DIM)]
    return [f[i] * x[i] + (1 - f[i]) * y[i] for i in range(DIM)]


def sig_tanh(gate: Any, x: list[float], y: list[float]) -> list[float]:
    return [x[i] + s(row(gate.w, i, y) - float(gate.bias[i])) * math.tanh(row(gate.u, i, y)) for i in range(DIM)]


BY_HAND = {
    GRUGate(): gru,
    InputGate(): lambda gate, x, y: [s(row(gate.w, i, x)) * x[i] + y[i] for i in range(DIM)],
    OutputGate(): lambda gate, x, y: [x[i] + s(row(gate.w, i, x) - float(gate.bias[i])) * y[i] for i in range(DIM)],
    HighwayGate(): highway,
    SigTanhGate(): sig_tanh,
}


@pytest.mark.parametrize("spec", list(BY_HAND), ids=repr)
def test_a_gate_is_its_equation(spec: Any) -> None:
    gate, (x, y) = built(spec), torch.randn(2, 1, 3, DIM)
    wanted = [BY_HAND[spec](gate, *rows) for rows in zip(x[0].tolist(), y[0].tolist(), strict=True)]
    torch.testing.assert_close(gate(x, y), torch.tensor([wanted]))


@pytest.mark.parametrize("spec", [GRUGate(3.0), OutputGate(3.0), HighwayGate(3.0), SigTanhGate(3.0)], ids=repr)
def test_the_bias_begins_where_it_is_told_and_learns(spec: Any) -> None:
    gate = spec.build(Site(dim=DIM))
    torch.testing.assert_close(gate.bias, torch.full((DIM,), 3.0))
    gate(torch.randn(1, 3, DIM), torch.randn(1, 3, DIM)).sum().backward()
    assert gate.bias.grad.all()


def test_torchs_own_cell_is_another_function() -> None:
    """The same matrices in `nn.GRUCell`, its update gate turned round for ours: what is left is where r comes in."""
    gate, (x, y) = built(GRUGate()), torch.randn(2, 3, DIM)
    cell = nn.GRUCell(DIM, DIM)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.cat([gate.w_r.weight, -gate.w_z.weight, gate.w_g.weight]))
        cell.weight_hh.copy_(torch.cat([gate.u_r.weight, -gate.u_z.weight, gate.u_g.weight]))
        cell.bias_ih.copy_(torch.cat([torch.zeros(DIM), gate.bias, torch.zeros(DIM)]))
        cell.bias_hh.zero_()
    differs = (cell(y, x) - gate(x, y)).abs().max()
    gate.u_g.weight.data.zero_()
    cell.weight_hh.data[2 * DIM :].zero_()
    torch.testing.assert_close(cell(y, x), gate(x, y))
    assert differs > 0.01


class SameForAll(Layer):
    """A sublayer that notes what it is given and says the same to all."""

    says: tuple[float, ...] = (1.0, -2.0, 0.5, -0.1, 3.0)

    def build(self, site: Site) -> nn.Module:
        return SameForAllLayer(self)


class SameForAllLayer(nn.Module):
    def __init__(self, spec: SameForAll) -> None:
        super().__init__()
        self.says, self.given = torch.tensor(spec.says), []

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        self.given.append(x)
        return Out(self.says.expand_as(x))


def test_norms_stand_before_sublayers_and_relu_behind_them() -> None:
    """TrXL-I: what is negative never joins the stream, and the stream itself is not normed."""
    block = Block((SameForAll(), SameForAll((-1.0, 1.0, 1.0, 1.0, 1.0))), Gated(gate=None)).build(Site(dim=DIM))
    x = 4 * torch.randn(1, 3, DIM) + 7
    out = block(x, Call(Places.run(0, 3)))
    once = x + torch.tensor([1.0, 0, 0.5, 0, 3])
    torch.testing.assert_close(out.y, once + torch.tensor([0.0, 1, 1, 1, 1]))
    norm = LayerNorm().build(Site(dim=DIM))
    torch.testing.assert_close(block.sublayers[0].given[0], norm(x))
    torch.testing.assert_close(block.sublayers[1].given[0], norm(once))


def test_each_sublayer_has_a_gate_of_its_own() -> None:
    rule = Block((SameForAll(), SameForAll()), Gated()).build(Site(dim=DIM)).residual
    first, second = rule.gates
    assert not set(map(id, first.parameters())) & set(map(id, second.parameters()))


@pytest.mark.parametrize(("bias", "off"), [(20.0, 3e-8), (800.0, 0.0)])
def test_a_large_bias_makes_every_block_the_identity(bias: float, off: float) -> None:
    """z is s(-20) = 2e-9 at most about; at 800 it is 0, and so is the difference."""
    block = Block((Attention(1), MLP(8)), Gated(gate=GRUGate(bias)))
    torch.manual_seed(0)
    model = Decoder("still", 11, DIM, stack(block, times=3), norm=None).build()
    tokens = torch.randint(11, (2, 9))
    x = model.embedding.tokens(tokens)
    torch.testing.assert_close(model(tokens).hidden, x, rtol=0, atol=off)


def test_a_bias_that_is_no_number_is_refused() -> None:
    block = Block((Attention(1), MLP(8)), Gated(gate=GRUGate(math.inf)))
    with pytest.raises(ConfigError, match="learns nothing"):
        Decoder("endless", 11, DIM, (block,)).build()
