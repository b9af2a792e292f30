"""The case on two processes, in a shape too small to mean anything."""

import io
import multiprocessing
import os

import pytest
from rich.console import Console

from formers.bench.cases import distributed
from formers.bench.registry import BENCHES
from formers.bench.trial import Trial


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two processes want a core each")
def test_both_ways_are_timed_beside_one_process_and_nothing_is_left_running() -> None:
    (case,) = (case for case in BENCHES.find("distributed") if case.measure.__module__ == distributed.__name__)
    rows = list(case.measure(Trial(case, Console(file=io.StringIO()), quick=True)))
    assert [row.goal is not None for row in rows] == [True, False]
    assert all(row.value > 0 and row.rival_value > 0 for row in rows)
    assert not multiprocessing.active_children()
