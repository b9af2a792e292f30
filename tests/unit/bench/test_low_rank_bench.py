"""The cases of the kernels suite on slots and on Fourier mixing, in shapes too small to mean anything."""

import io

import pytest
from rich.console import Console

from formers.bench.cases import linformer
from formers.bench.registry import BENCHES
from formers.bench.trial import Trial

CASES = [case for case in BENCHES.find("kernels") if case.measure.__module__ == linformer.__name__]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.measure.__name__)
def test_a_case_gives_its_rows(case) -> None:
    rows = list(case.measure(Trial(case, Console(file=io.StringIO()), quick=True)))
    assert len(rows) == (2 if "Fourier" in case.title else 3)
    for row in rows:
        assert row.value > 0 and row.unit == "ms" and row.better == "lower"
        assert (row.rival_value is None) == (not case.rival.installed)
        assert case.rival.installed or row.note == "not measured: pip install 'formers[rivals-kernels]'"


def test_there_is_one_against_the_package() -> None:
    assert [case.rival.package for case in CASES].count("linformer") == 1
