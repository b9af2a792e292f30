"""The recurrent branch: its formula, its state, padding, and what it refuses."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from formers import ConfigError
from formers.call import Call
from formers.places import Places
from formers.recurrence import SRUBranch
from formers.recurrence.sru import SRU
from formers.spec import Site
from formers.spec.check import check
from formers.state import select

DIM = 6


def branch(depth: int = 2, width: int = 4) -> Any:
    torch.manual_seed(0)
    layer = SRUBranch(depth, width).build(Site(DIM, causal=True)).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def stream(length: int) -> Tensor:
    return torch.randn(3, length, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_one_unit_is_its_formula() -> None:
    torch.manual_seed(0)
    unit, x = SRU(4).double(), torch.randn(2, 5, 4, dtype=torch.float64)
    forget, reset, update = unit.proj(x).split(4, -1)
    c, outs = torch.zeros(2, 4, dtype=torch.float64), []
    for t in range(5):
        f, r = forget[:, t].sigmoid(), reset[:, t].sigmoid()
        c = f * c + (1 - f) * update[:, t]
        outs.append(r * c + (1 - r) * x[:, t] * math.sqrt(3))
    y, carried = unit(x, None, None)
    torch.testing.assert_close(y, torch.stack(outs, 1))
    torch.testing.assert_close(carried, c)


@pytest.mark.parametrize("sizes", [[1] * 20, [7, 13], [19, 1]], ids=str)
def test_steps_are_one_pass_and_old_states_stay_valid(sizes: list[int]) -> None:
    layer, x = branch(), stream(20)
    whole, state, parts, at = layer(x, Call(Places.run(0, 20))), None, [], 0
    states = []
    for part in x.split(sizes, 1):
        out = layer(part, Call(Places.run(at, part.shape[1])), state)
        state, at = out.state, at + part.shape[1]
        states.append(state)
        parts.append(out.y)
    torch.testing.assert_close(torch.cat(parts, 1), whole.y)
    torch.testing.assert_close(state, whole.state)
    again = layer(x[:, sizes[0] :], Call(Places.run(sizes[0], 20 - sizes[0])), states[0])
    torch.testing.assert_close(again.y, whole.y[:, sizes[0] :])
    rows = torch.tensor([2, 0])
    torch.testing.assert_close(select(state, rows)[1], state[1][rows])


def test_padding_anywhere_leaves_the_state_as_it_is() -> None:
    layer, x = branch(), stream(9)
    real = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 1, 0, 1, 1], [0] * 9]).bool()
    padded = layer(x.masked_fill(~real[..., None], 1e30), Call(Places(torch.zeros(3, 9).long(), real)))
    for row in range(2):
        alone = layer(x[row : row + 1, real[row]], Call(Places.run(0, int(real[row].sum()))))
        torch.testing.assert_close(padded.y[row][real[row]], alone.y[0])
        torch.testing.assert_close(padded.state[1][row], alone.state[1][0])
    assert not padded.state[0][2].any()


def test_gradients_reach_back_through_a_state() -> None:
    layer, x = branch(), stream(6).requires_grad_()
    state = layer(x[:, :4], Call(Places.run(0, 4))).state
    (reached,) = torch.autograd.grad(layer(x[:, 4:], Call(Places.run(4, 2)), state).y.sum(), x)
    assert reached[:, 0].any()


def test_half_precision_keeps_its_state_in_full() -> None:
    layer = SRUBranch(1, 4).build(Site(DIM)).bfloat16()
    out = layer(stream(300).bfloat16(), Call(Places.run(0, 300)))
    assert out.y.dtype == torch.bfloat16 and out.state[0].dtype == torch.float32


def test_a_state_from_inference_serves_training() -> None:
    layer, x = branch(), stream(6)
    with torch.inference_mode():
        state = layer(x[:, :4], Call(Places.run(0, 4))).state
    out = layer(x[:, 4:], Call(Places.run(4, 2)), state)
    out.y.sum().backward()
    torch.testing.assert_close(out.y, layer(x, Call(Places.run(0, 6))).y[:, 4:])


def test_nothing_remembered_where_nothing_continues() -> None:
    assert branch()(stream(3), Call(Places.run(0, 3), remember=False)).state is None


@pytest.mark.parametrize("fields", [{"depth": 0}, {"width": 0}])
def test_units_that_carry_nothing_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="carry nothing from token to token"):
        check(SRUBranch(**fields), Site(DIM), "branch")
