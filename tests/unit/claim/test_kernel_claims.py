"""The claims on attention by features, at their smallest, and the errors of features at their own size."""

import io

import pytest
from rich.console import Console

from formers import claim
from formers.claim.cases.kernel import MAPS, ORTHOGONAL, TRIGONOMETRIC, Estimates


def run(name: str) -> list:
    return claim.run(name, console=Console(file=io.StringIO(), width=160), quick=True)


def test_performer_tells_errors_and_losses() -> None:
    rows = run("performer")
    errors = [row for row in rows if row.unit == "mean squared error"]
    losses = [row for row in rows if row.unit == "bits/byte"]
    assert len(errors) == 3 * len(MAPS) + 4
    assert losses[0].name == "softmax"
    assert len(losses) == 4
    assert sum(row.goal is not None for row in losses) == 1
    assert all(row.value is not None and row.value > 0 for row in rows)


def test_rfa_tells_what_a_gate_brings() -> None:
    rows = run("rfa")
    assert [row.name for row in rows] == ["softmax", "RFA", "RFA-Gate", "what the gate takes off the loss"]
    assert rows[-1].value == pytest.approx(rows[1].value - rows[2].value)
    assert rows[2].goal.bound == pytest.approx(rows[0].value + 0.1)


def test_positive_features_win_where_the_kernel_is_small() -> None:
    estimates = Estimates(seeds=5)
    assert estimates.error(MAPS[ORTHOGONAL], 1.0, 64) < estimates.error(MAPS[TRIGONOMETRIC], 1.0, 64) / 100
    assert estimates.error(MAPS[TRIGONOMETRIC], 0.5, 64) < estimates.error(MAPS[ORTHOGONAL], 0.5, 64)
