"""Rows and machines as they are printed."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from formers.report.machine import Machine
from formers.report.rows import Row


def number(value: float | None) -> str:
    """A figure as people read it: four significant digits, thousands apart, a dash for what was not measured."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def header(title: str, machine: Machine) -> Text:
    """Title, machine, threads and versions, in four lines."""
    memory = "" if machine.memory is None else f", {machine.memory / 2**30:.1f} GiB"
    cores = "1 core" if machine.cores == 1 else f"{machine.cores} cores"
    lines = {
        "machine": f"{machine.processor}, {cores}{memory}, {machine.system}",
        "threads": str(machine.threads),
        "versions": ", ".join(f"{name} {version}" for name, version in machine.versions.items()),
    }
    return Text(title, style="bold").append(
        "".join(f"\n{label:<9}{line}" for label, line in lines.items()), style="not bold"
    )


def table(rows: Sequence[Row]) -> Table:
    """A table of figure, ours, rival, unit, ratio, goal, met, with the reason in place of a rival that is absent."""
    result = Table(box=None, pad_edge=False, header_style="bold", show_edge=False, padding=(0, 2, 0, 0))
    for name in ("figure", "ours", "rival", "unit", "ratio", "goal", "met"):
        result.add_column(name, justify="right" if name in ("ours", "rival", "ratio") else "left", overflow="fold")
    for row in rows:
        result.add_row(
            row.name,
            number(row.value),
            _rival(row),
            row.unit,
            number(row.ratio),
            "" if row.goal is None else str(row.goal),
            _verdict(row),
        )
    return result


def footnotes(rows: Sequence[Row]) -> list[str]:
    """One line for each rival with the figures that it stands beside, and one for each note."""
    rivals: dict[str, list[str]] = {}
    for row in rows:
        if row.rival:
            rivals.setdefault(row.rival, []).append(row.name)
    if len(rivals) == 1:
        lines = [f"rival: {rival}" for rival in rivals]
    else:
        lines = [f"rival of {'; '.join(names)}: {rival}" for rival, names in rivals.items()]
    return lines + [f"{row.name}: {row.note}" for row in rows if row.note and not _rival_absent(row)]


def _rival(row: Row) -> Text:
    return Text(row.note if _rival_absent(row) and row.note else number(row.rival_value))  # brackets are no markup


def _rival_absent(row: Row) -> bool:
    return row.rival is not None and row.rival_value is None


def _verdict(row: Row) -> Text:
    if row.met is None:
        return Text("-" if row.goal is None else "not measured", style="dim")
    return Text("met", style="green") if row.met else Text("not met", style="red")
