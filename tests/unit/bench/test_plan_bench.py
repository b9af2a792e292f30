"""The suite on plans, at its smallest."""

import io

from rich.console import Console

from formers.bench import cases  # noqa: F401 - registers them
from formers.bench.registry import BENCHES
from formers.bench.runner import run_suite


def test_plans_are_held_against_states(tmp_path) -> None:
    console = Console(file=io.StringIO(), width=160)
    rows = run_suite(BENCHES, "plan", only="planned bytes that", console=console, quick=True, folder=tmp_path)
    assert [row.name for row in rows] == ["gpt2"]
    assert rows[0].met and "measured" in rows[0].note
