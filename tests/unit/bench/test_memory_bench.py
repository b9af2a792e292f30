"""The suite on memory, at its smallest."""

import io

from rich.console import Console

from formers.bench import cases  # noqa: F401 - registers them
from formers.bench.registry import BENCHES
from formers.bench.runner import run_suite

CASES = {"evaluating with Transformer-XL": ["a token that sees 32 before it", "a token that sees 64 before it"]}


def test_evaluating_with_a_memory_is_held_against_a_window(tmp_path) -> None:
    for title, names in CASES.items():
        console = Console(file=io.StringIO(), width=160)
        rows = run_suite(BENCHES, "memory", only=title, console=console, quick=True, folder=tmp_path)
        assert [row.name for row in rows] == names
        assert all(row.value > 0 and row.rival_value > 0 for row in rows)
    assert (tmp_path / "memory.png").is_file()
