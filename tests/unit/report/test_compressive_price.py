"""The price of compressed memory is what a step does, wherever in a segment it stands."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from formers import ConvCompression, MaxCompression, MostUsedCompression, make
from formers.report.cost import cost

SIZES = {"dim": 16, "depth": 2, "heads": 2, "hidden": 16, "vocab": 11, "segment": 4, "memory": 4, "compressed": 3}


def small(compression: Any) -> Any:
    loss = "attention" if compression.learns else None
    return make("compressive_transformer", **SIZES, compression=compression, loss=loss, dropout=0.0)


@pytest.mark.parametrize("compression", [ConvCompression(2), MaxCompression(2)], ids=repr)
def test_every_step_does_what_is_told(compression: Any) -> None:
    model, token = small(compression).build().eval(), torch.zeros(1, 1, dtype=torch.int64)
    state, told = None, []
    with torch.no_grad():
        for length in range(1, 22):
            with FlopCounterMode(display=False) as counter:
                state = model.step(token, state).state
            told.append((length, counter.get_total_flops(), cost(small(compression), length).total.last))
    assert [(length, done) for length, done, _ in told] == [(length, asked) for length, _, asked in told]


def test_finding_the_most_used_costs_a_pass_of_a_segment() -> None:
    by_use, by_maximum = (cost(small(kind(2)), 16).total for kind in (MostUsedCompression, MaxCompression))
    seen = 3 + 4 + 4
    assert by_use.last - by_maximum.last == 2 * 2 * (16 * (16 * 4 + 2 * 16 * seen) + 4 * seen * 16)
    assert by_use.operations > by_maximum.operations
