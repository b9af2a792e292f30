import io
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from rich.console import Console

from formers.bench.registry import Registry, Rival
from formers.bench.runner import missed, run_suite
from formers.errors import DataError, FormersError
from formers.report.rows import ratio_at_least


def quiet() -> Console:
    return Console(file=io.StringIO(), width=140)


def registry_with(measure, **options) -> Registry:
    registry = Registry("bench")
    registry.case("toy", "a toy", **{"unit": "tokens/s", **options})(measure)
    return registry


def test_rows_take_what_the_case_says_unless_told_otherwise() -> None:
    def measure(trial):
        yield trial.row("speed", 30.0, 20.0)
        yield trial.row("time", 2.0, 3.0, unit="ms", better="lower", goal=None)

    registry = registry_with(measure, rival=Rival("other"), goal=ratio_at_least(1.5))
    speed, time = run_suite(registry, "toy", console=quiet())
    assert (speed.unit, speed.rival, speed.ratio, speed.met) == ("tokens/s", "other", 1.5, True)
    assert (time.unit, time.ratio, time.met) == ("ms", 1.5, None)


def test_a_rival_that_is_not_installed_is_a_row_and_is_never_made() -> None:
    def measure(trial):
        duel = trial.duel(lambda: None, lambda: pytest.fail("an absent rival was made"))
        yield trial.row("speed", *duel.rate(10))

    absent = Rival("another", package="no-such-package-anywhere")
    console = quiet()
    (row,) = run_suite(registry_with(measure, rival=absent, goal=ratio_at_least(1.0)), "toy", console=console)
    assert row.value is not None and row.rival_value is None and row.met is None
    assert "not measured: pip install no-such-package-anywhere" in console.file.getvalue()


def test_an_installed_rival_is_timed_in_turns_with_ours() -> None:
    order = []

    def measure(trial):
        duel = trial.duel(lambda: order.append("ours"), lambda: lambda: order.append("rival"))
        yield trial.row("speed", *duel.rate(10))

    (row,) = run_suite(registry_with(measure, rival=Rival("other")), "toy", console=quiet(), quick=True)
    assert order == ["ours", "rival"] * 2
    assert row.ratio is not None


def test_printed_report_has_header_and_verdict() -> None:
    console = quiet()
    registry = registry_with(
        lambda trial: [trial.row("speed", 1.0, 2.0)], rival=Rival("other"), goal=ratio_at_least(1.0)
    )
    rows = run_suite(registry, "toy", console=console, threads=1)
    text = console.file.getvalue()
    assert "formers bench toy" in text and "threads  1" in text and "not met" in text and "rival: other" in text
    assert missed(rows) == rows


def test_json_keeps_what_was_measured_before_a_later_case_failed(tmp_path) -> None:
    registry = registry_with(lambda trial: [trial.row("speed", 1.0)])
    path = tmp_path / "rows.json"

    @registry.case("toy", "breaks", unit="ms")
    def breaks(trial):
        raise DataError("no data")

    with pytest.raises(DataError):
        run_suite(registry, "toy", console=quiet(), json=path)
    assert [row["name"] for row in json.loads(path.read_text(encoding="utf-8"))["rows"]] == ["speed"]


def test_an_unwritable_json_file_is_refused_before_anything_is_measured(tmp_path) -> None:
    registry = registry_with(lambda trial: pytest.fail("measured in vain"))
    with pytest.raises(DataError, match="it is a folder"):
        run_suite(registry, "toy", console=quiet(), json=tmp_path)


def test_threads_are_set_for_the_run_only() -> None:
    before, seen = torch.get_num_threads(), []
    registry = registry_with(lambda trial: [trial.row("threads", float(seen.append(torch.get_num_threads()) or 1))])
    run_suite(registry, "toy", console=quiet(), threads=before + 1)
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_fewer_threads_than_one_are_refused() -> None:
    with pytest.raises(FormersError, match="0 threads"):
        run_suite(registry_with(lambda trial: []), "toy", console=quiet(), threads=0)


def test_data_that_was_not_given_is_asked_for_by_name(tmp_path) -> None:
    registry = registry_with(lambda trial: [trial.row(str(trial.require_data()), 1.0)], needs="a text file")
    with pytest.raises(DataError, match="toy needs data; give it with --data: a text file"):
        run_suite(registry, "toy", console=quiet())
    with pytest.raises(DataError, match="does not exist"):
        run_suite(registry, "toy", console=quiet(), data=tmp_path / "absent.txt")


def test_kept_files_stand_in_the_folder_of_the_run(tmp_path) -> None:
    def measure(trial):
        trial.keep("notes.txt").write_text("kept", encoding="utf-8")
        return [trial.row("speed", 1.0)]

    run_suite(registry_with(measure), "toy", console=quiet(), folder=tmp_path / "deep" / "folder")
    assert (tmp_path / "deep" / "folder" / "notes.txt").read_text(encoding="utf-8") == "kept"


def test_data_that_no_case_reads_is_refused() -> None:
    def measure(trial):
        yield trial.row("speed", 1.0)

    with pytest.raises(FormersError, match=r"toy reads no data; leave out --data book\.txt"):
        run_suite(registry_with(measure), "toy", console=quiet(), data=Path("book.txt"))


def asleep(seconds: float) -> Callable[[], None]:
    return partial(time.sleep, seconds)


def test_a_duel_in_a_process_of_its_own() -> None:
    def measure(trial):
        duel = trial.duel_apart(partial(asleep, 0.0), partial(asleep, 0.05), warmup=0, rounds=1)
        yield trial.row("pause", duel.ours, duel.rival)

    (row,) = run_suite(registry_with(measure, rival=Rival("a sleeper")), "toy", console=quiet())
    assert row.value < 0.05 <= row.rival_value
    absent = registry_with(measure, rival=Rival("another", package="no-such-package-anywhere"))
    (row,) = run_suite(absent, "toy", console=quiet())
    assert row.rival_value is None
