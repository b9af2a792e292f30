"""The claim on the Depth-Adaptive Transformer, at its smallest."""

import io
import math

import torch
from rich.console import Console

from formers import claim
from formers.claim.cases.depth_adaptive import DEPTH, questions
from formers.claim.pointer_task import TINY


def test_exits_are_held_against_the_model_in_full() -> None:
    rows = claim.run("depth_adaptive", console=Console(file=io.StringIO(), width=160), quick=True)
    assert [str(row.goal) for row in rows] == [
        "value >= 0.95",
        "value >= -0.01",
        "value <= 0.01",
        "value <= 3.6",
        "value >= 0",
        "value <= 0.01",
        "value <= 3.6",
    ]
    assert len(rows[0].note.split(",")) == DEPTH
    depths = [row for row in rows if row.name.startswith("mean exit")]
    assert all(1 <= row.value <= row.rival_value == DEPTH for row in depths)
    assert all(math.isfinite(row.value) for row in rows)


def test_thresholds_are_searched_on_other_questions() -> None:
    first, second = questions(TINY, 40), questions(TINY, 40, skip=100)
    assert first.question.inputs[0].shape == (40, 6)
    assert not torch.equal(first.question.inputs[0], second.question.inputs[0])
