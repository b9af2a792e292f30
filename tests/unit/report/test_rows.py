import json
import math

import pytest

from formers.errors import DataError
from formers.report.machine import this_machine
from formers.report.rows import Row, ratio_at_least, require_writable, save_rows, value_at_least, value_at_most


def test_ratio_says_how_many_times_better_in_both_directions() -> None:
    faster = Row(name="speed", value=300.0, unit="tokens/s", rival="other", rival_value=200.0)
    shorter = Row(name="time", value=2.0, unit="ms", better="lower", rival="other", rival_value=3.0)
    assert faster.ratio == 1.5
    assert shorter.ratio == 1.5


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (ratio_at_least(1.5), True),
        (ratio_at_least(1.51), False),
        (value_at_least(300.0), True),
        (value_at_least(301.0), False),
        (value_at_most(300.0), True),
        (value_at_most(299.0), False),
    ],
)
def test_goal_is_met_at_its_bound_and_beyond(goal, met) -> None:
    assert Row(name="speed", value=300.0, unit="", rival="other", rival_value=200.0, goal=goal).met is met


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    row = Row(name="speed", value=300.0, unit="", rival="other", goal=ratio_at_least(1.0))
    assert row.ratio is None
    assert row.met is None
    assert Row(name="speed", value=300.0, unit="").met is None


def test_a_loss_that_is_not_a_number_misses_its_goal() -> None:
    row = Row(name="loss", value=math.nan, unit="nats", better="lower", goal=value_at_most(1.88))
    assert row.met is False
    assert row.to_dict()["value"] is None


def test_a_rival_of_zero_gives_no_number() -> None:
    row = Row(name="speed", value=1.0, unit="", rival="other", rival_value=0.0, goal=ratio_at_least(1.0))
    assert row.to_dict()["ratio"] is None
    assert row.met is False


def test_saved_rows_carry_every_field_and_the_machine(tmp_path) -> None:
    path = tmp_path / "rows.json"
    row = Row(name="speed", value=3.0, unit="tokens/s", rival="other", rival_value=2.0, goal=ratio_at_least(1.0))
    save_rows(path, "formers bench toy", [row], this_machine(["torch"]))
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["title"] == "formers bench toy"
    assert document["machine"]["threads"] >= 1
    assert document["rows"] == [
        {
            "name": "speed",
            "value": 3.0,
            "unit": "tokens/s",
            "better": "higher",
            "rival": "other",
            "rival_value": 2.0,
            "ratio": 1.5,
            "goal": "ratio >= 1",
            "met": True,
            "note": "",
        }
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.json"]


def test_require_writable_leaves_nothing_behind(tmp_path) -> None:
    require_writable(tmp_path / "later.json")
    assert list(tmp_path.iterdir()) == []


def test_require_writable_refuses_a_folder_and_what_lies_below_a_file(tmp_path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for path in (tmp_path, tmp_path / "file" / "later.json"):
        with pytest.raises(DataError, match="cannot write"):
            require_writable(path)
