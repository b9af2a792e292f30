"""The cases on the Feedback Transformer, in shapes too small to mean anything."""

import io

import pytest
from rich.console import Console

from formers.bench.cases import feedback
from formers.bench.registry import BENCHES
from formers.bench.trial import Trial

CASES = [case for case in BENCHES.find("memory") if case.measure.__module__ == feedback.__name__]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.measure.__name__)
def test_a_case_gives_its_rows(case) -> None:
    rows = list(case.measure(Trial(case, Console(file=io.StringIO()), quick=True)))
    assert len(rows) == (1 if "training" in case.title else 3)
    for row in rows:
        assert row.value > 0 and row.better == "lower"
        beside = row.rival is not None and case.rival.installed
        assert (row.rival_value is not None) == beside
    assert case.rival.installed or rows[0].note == "not measured: pip install 'formers[rivals-memory]'"
