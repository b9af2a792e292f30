"""Running a suite: header, cases with progress, table, JSON."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console

from formers.bench.registry import Case, Registry
from formers.bench.trial import Trial
from formers.errors import FormersError
from formers.report.machine import this_machine
from formers.report.rows import Row, require_writable, save_rows
from formers.report.table import footnotes, header, table


def run_suite(
    registry: Registry,
    suite: str,
    *,
    only: str | None = None,
    console: Console | None = None,
    json: Path | None = None,
    threads: int | None = None,
    quick: bool = False,
    data: Path | None = None,
    folder: Path | None = None,
) -> list[Row]:
    """Run every case of a suite, or those whose title has the words `only`, print what came out, and give the rows.

    The JSON file is brought up to date after each case, so an interrupted suite keeps what it has measured.
    Raises FormersError for an unknown suite, a file that cannot be written, data that nothing reads, or fewer threads
    than one.
    """
    cases = chosen(registry.find(suite), only)
    if data is not None and not any(case.needs for case in cases):
        raise FormersError(f"{suite} reads no data; leave out --data {data}")
    console = console or Console()
    if json is not None:
        require_writable(json)
    rows: list[Row] = []
    with _threads(threads):
        title = f"formers {registry.kind} {suite}" + (" (quick: shapes too small to mean anything)" if quick else "")
        machine = this_machine(_packages(cases))
        console.print(header(title, machine), end="\n\n", highlight=False)
        for case in cases:
            trial = Trial(case, console, quick, data, folder or Path("runs") / f"{registry.kind}-{suite}")
            rows.extend(case.measure(trial))
            if json is not None:
                save_rows(json, title, rows, machine)
    console.print(table(rows))
    console.print("\n" + "\n".join(footnotes(rows)), highlight=False, markup=False)
    return rows


def chosen(cases: tuple[Case, ...], only: str | None) -> tuple[Case, ...]:
    """Those whose title has the words; raises FormersError, with the titles, where there is none."""
    found = tuple(case for case in cases if only is None or only.lower() in case.title.lower())
    if not found:
        raise FormersError(f"no case has {only!r} in its title: " + "; ".join(case.title for case in cases))
    return found


def missed(rows: list[Row]) -> list[Row]:
    """The rows whose goal was measured and not met: what `--strict` fails on."""
    return [row for row in rows if row.met is False]


def _packages(cases: tuple[Case, ...]) -> list[str]:
    return [case.rival.package for case in cases if case.rival is not None and case.rival.package is not None]


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """PyTorch with that many threads, and as it was before afterwards."""
    if count is not None and count < 1:
        raise FormersError(f"{count} threads cannot compute anything; give --threads 1 or more.")
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
