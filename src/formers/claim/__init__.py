"""Claims: experiments that show what a paper says, each told as met or not; `formers claim NAME` on the command line."""

from pathlib import Path

from rich.console import Console

from formers.bench.registry import CLAIMS
from formers.bench.runner import missed, run_suite
from formers.claim import cases
from formers.report.rows import Row

__all__ = ["CLAIMS", "cases", "missed", "run"]


def run(
    name: str,
    *,
    data: Path | None = None,
    folder: Path | None = None,
    console: Console | None = None,
    json: Path | None = None,
    threads: int | None = None,
    quick: bool = False,
) -> list[Row]:
    """Run every experiment of that name, print a table, and give its rows.

    data: what the experiment reads, if it reads anything. folder: where it leaves files, runs/claim-NAME by default.
    The rest as for `formers.bench.run`. Raises FormersError for a name that no claim has, or for data that is missing.
    """
    return run_suite(CLAIMS, name, console=console, json=json, threads=threads, quick=quick, data=data, folder=folder)
