"""The price of attention by features is what a step does, and its state is what decoding keeps."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from formers import MEMBERS, make
from formers.report.cost import cost
from formers.state import tensors


@pytest.mark.parametrize("name", ["performer", "rfa", "rfa_gate"])
@pytest.mark.parametrize("length", [1, 2, 50])
def test_a_step_does_and_keeps_what_is_told(name: str, length: int) -> None:
    spec = make(name, **MEMBERS[name].small)
    model, token = spec.build().eval(), torch.zeros(1, 1, dtype=torch.int64)
    with torch.no_grad():
        state = model(token.expand(1, length - 1)).state if length > 1 else None
        with FlopCounterMode(display=False) as counter:
            state = model.step(token, state).state
    told = cost(spec, length).total
    assert counter.get_total_flops() == told.last
    assert sum(t.numel() * t.element_size() for t in tensors(state.blocks)) == told.state


def test_a_token_costs_the_same_at_any_length_beyond_a_chunk() -> None:
    spec = make("performer", **MEMBERS["performer"].small)
    near, far = (cost(spec, length).total for length in (100, 100_000))
    assert (near.operations, near.last, near.state) == (far.operations, far.last, far.state)
