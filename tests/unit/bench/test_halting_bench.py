"""The case on a Universal Transformer that halts, in a shape too small to mean anything."""

import io

from rich.console import Console

from formers.bench.cases import universal
from formers.bench.registry import BENCHES
from formers.bench.trial import Trial


def test_the_case_gives_its_rows() -> None:
    (case,) = [case for case in BENCHES.find("early-exit") if case.measure.__module__ == universal.__name__]
    rows = list(case.measure(Trial(case, Console(file=io.StringIO()), quick=True)))
    assert [row.name for row in rows] == [
        "applications of the block to a token",
        "accuracy",
        "a text at once",
        "a text token by token",
    ]
    assert 1 <= rows[0].value <= rows[0].rival_value == 6
    assert all(row.value > 0 and row.rival_value > 0 for row in rows[2:])
    assert str(rows[0].goal) == "ratio >= 1.42857"
