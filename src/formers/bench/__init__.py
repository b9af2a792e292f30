"""Benchmarks: one register of cases, run against their rivals in turns; `formers bench NAME` on the command line."""

from pathlib import Path

from rich.console import Console

from formers.bench import cases
from formers.bench.registry import BENCHES, Case, Rival
from formers.bench.runner import missed, run_suite
from formers.report.rows import Row

__all__ = ["BENCHES", "Case", "Rival", "cases", "missed", "run"]


def run(
    name: str,
    *,
    console: Console | None = None,
    json: Path | None = None,
    threads: int | None = None,
    quick: bool = False,
    data: Path | None = None,
) -> list[Row]:
    """Measure every case of the suite of that name, print a table, and give its rows.

    json: a file to keep the rows in. threads: of PyTorch, as many as now by default. quick: shapes too small to mean
    anything. data: for a suite that reads some.
    Raises FormersError for a name that no suite has, or a file that cannot be written.
    """
    return run_suite(BENCHES, name, console=console, json=json, threads=threads, quick=quick, data=data)
