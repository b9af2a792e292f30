"""The claim on CALM, at a size too small to mean anything: every line runs, and the promise is counted right."""

import torch

from formers.claim import run
from formers.claim.cases.calm import GRID, PROMISE, Answered


def test_it_runs(tmp_path) -> None:
    rows = run("calm", quick=True, folder=tmp_path)
    assert len(rows) == 6
    assert all(row.value is not None for row in rows)


def test_the_risk_is_that_of_the_chosen_threshold_on_other_questions() -> None:
    """Below 0.5 every answer changes, and at 0.5 the share 0.01 of them."""
    changed = torch.tensor([[float(threshold < 0.5)] * 1000 for threshold in GRID], dtype=torch.float64)
    changed[GRID.index(0.5), :10] = 1
    found = Answered(changed, torch.full_like(changed, 2))
    chosen = found.calibrated(torch.arange(500))
    assert chosen.threshold == 0.5
    assert found.risk(chosen.threshold, torch.arange(500, 1000)) == 0
    assert found.risk(chosen.threshold, torch.arange(500)) == 0.02 < PROMISE.risk
    assert found.risk(None, torch.arange(5)) == 0
