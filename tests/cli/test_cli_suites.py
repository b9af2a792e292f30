"""`formers bench` and `claim`: suites by name, with their figures as JSON."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Cli

from formers.bench.registry import Registry
from formers.bench.trial import Trial
from formers.report.rows import Row, value_at_least


@pytest.fixture(autouse=True)
def suites(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry of one suite, in place of those whose cases take minutes."""
    benches, claims = Registry("bench"), Registry("claim")

    @benches.case("count", "sheep", unit="sheep", goal=value_at_least(3))
    def sheep(trial: Trial) -> Iterator[Row]:
        yield trial.row("sheep", 2.0)

    @claims.case("words", "longest", unit="letters", needs="a text file")
    def longest(trial: Trial) -> Iterator[Row]:
        yield trial.row("longest", max(map(len, trial.require_data().read_text().split())))
        trial.keep("seen").write_text("yes")

    monkeypatch.setattr("formers.cli.bench.BENCHES", benches)
    monkeypatch.setattr("formers.cli.claim.CLAIMS", claims)


def test_without_a_name_the_suites_are_listed(cli: Cli) -> None:
    assert cli("bench") == (0, "count: sheep\n", "")
    assert cli("claim") == (0, "words: longest\n", "")


def test_some_cases_of_a_suite_can_be_run(cli: Cli) -> None:
    assert cli("bench", "count", "--only", "SHEEP").code == 0
    code, _, err = cli("bench", "count", "--only", "goats")
    assert (code, "no case has 'goats' in its title: sheep" in err) == (1, True)


def test_a_suite_is_run_and_written_down(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("bench", "count", "--json", tmp_path / "rows.json", "--threads", 1)
    assert code == 0
    assert "sheep" in out and "not met" in out and "threads  1" in out
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [(row["name"], row["value"], row["met"]) for row in rows] == [("sheep", 2.0, False)]


def test_a_goal_that_is_not_met_fails_where_that_is_asked_for(cli: Cli) -> None:
    assert cli("bench", "count", "--strict").code == 1


def test_a_claim_has_data_and_a_place(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a longer text")
    assert cli("claim", "words", "--data", tmp_path / "text", "--out", tmp_path / "kept").code == 0
    assert (tmp_path / "kept" / "seen").read_text() == "yes"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["bench", "cuont"], "did you mean count?"),
        (["bench", "count", "--threads", "0"], "0 threads cannot compute anything"),
        (["bench", "count", "--json", "/dev/null/rows.json"], "cannot write /dev/null/rows.json"),
        (["claim", "words"], "words needs data; give it with --data: a text file"),
        (["claim", "words", "--data", "missing"], "missing does not exist"),
    ],
)
def test_what_cannot_be_run_is_told(words: list[str], told: str, cli: Cli) -> None:
    code, _, err = cli(*words)
    assert code == 1
    assert told in err
