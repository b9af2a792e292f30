import io

from rich.console import Console

from formers.report.machine import Machine, this_machine
from formers.report.rows import Row, ratio_at_least
from formers.report.table import footnotes, header, number, table


def printed(thing) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(thing)
    return console.file.getvalue()


def test_numbers_keep_four_digits_and_a_dash_stands_for_none() -> None:
    assert number(12345.678) == "12,346"
    assert number(0.99812) == "0.9981"
    assert number(None) == "-"


def test_table_tells_met_from_not_met_and_from_not_measured() -> None:
    met = Row(name="fast", value=3.0, unit="ms", rival="a", rival_value=1.5, goal=ratio_at_least(1.5))
    missed = Row(name="slow", value=1.0, unit="ms", rival="a", rival_value=2.0, goal=ratio_at_least(1.5))
    absent = Row(
        name="alone", value=1.0, unit="ms", rival="b", goal=ratio_at_least(1.5), note="not measured: pip install b"
    )
    lines = printed(table([met, missed, absent])).splitlines()
    assert lines[0].split() == ["figure", "ours", "rival", "unit", "ratio", "goal", "met"]
    assert lines[1].split()[-1] == "met" and "not met" not in lines[1]
    assert lines[2].rstrip().endswith("not met")
    assert "not measured: pip install b" in lines[3]


def test_footnotes_name_rivals_once_and_keep_notes_that_the_table_does_not_show() -> None:
    rows = [
        Row(name="one", value=1.0, unit="", rival="a", rival_value=1.0, note="random weights"),
        Row(name="two", value=1.0, unit="", rival="a", rival_value=1.0),
    ]
    assert footnotes(rows) == ["rival: a", "one: random weights"]
    other = Row(name="three", value=1.0, unit="", rival="b", note="not measured: pip install b")
    assert footnotes([*rows, other]) == ["rival of one; two: a", "rival of three: b", "one: random weights"]


def test_header_names_machine_threads_and_versions() -> None:
    machine = Machine("Some CPU", 2, 8 * 2**30, "Linux 6", 1, {"python": "3.11", "torch": "2.13"})
    lines = printed(header("formers bench train", machine)).splitlines()
    assert lines[0] == "formers bench train"
    assert lines[1] == "machine  Some CPU, 2 cores, 8.0 GiB, Linux 6"
    assert lines[2] == "threads  1"
    assert lines[3] == "versions python 3.11, torch 2.13"


def test_this_machine_says_which_packages_are_missing() -> None:
    machine = this_machine(["torch", "no-such-package-anywhere"])
    assert machine.cores >= 1
    assert machine.versions["no-such-package-anywhere"] == "not installed"
    assert list(machine.versions)[:3] == ["python", "torch", "formers"]
