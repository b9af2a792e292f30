"""What a depth that is run again and again costs: as much as is told where no token halts, and less where some do."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from formers import MEMBERS, make
from formers.report.cost import Cost, cost
from formers.state import tensors

SMALL = MEMBERS["universal"].small
LENGTH = 9


def step_of(**arguments: object) -> tuple[Cost, int, int]:
    """What is told of the last of LENGTH tokens, the operations that its step did, and the bytes of the state after it."""
    spec = make("universal", **{**SMALL, **arguments})
    torch.manual_seed(0)
    model, tokens = spec.build().eval().requires_grad_(False), torch.zeros(1, LENGTH, dtype=torch.int64)
    before = model(tokens[:, 1:]).state
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        after = model(tokens[:, :1], before).state
    return cost(spec, LENGTH), counter.get_total_flops(), sum(4 * tensor.numel() for tensor in tensors(after))


@pytest.mark.parametrize("transition", ["dense", "separable"])
def test_fixed_steps_cost_what_is_told(transition: str) -> None:
    told, done, kept = step_of(ponder=None, transition=transition)
    assert (done, kept) == (told.total.last, told.total.state)


def test_halting_costs_less() -> None:
    told, done, _ = step_of(steps=30)
    assert done < told.total.last / 2


def test_parameters_do_not_grow_with_the_steps_but_for_their_signals() -> None:
    few, many = (cost(make("universal", **{**SMALL, "steps": steps}), LENGTH).total for steps in (3, 10))
    assert many.parameters - few.parameters == 7 * SMALL["dim"]
    assert many.token == few.token / 3 * 10
