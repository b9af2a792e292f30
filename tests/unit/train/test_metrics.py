import pytest

from formers.errors import CheckpointError
from formers.train.metrics import MetricsLog, read_metrics, rewind

ROWS = [{"kind": "train", "step": step, "loss": 1.0 / step} for step in (1, 2, 3)]


def test_rows_are_on_the_disk_as_soon_as_they_are_written(tmp_path):
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.write(ROWS[:2])
        assert read_metrics(tmp_path / "metrics.jsonl") == ROWS[:2]
        log.write(ROWS[2:])
    assert read_metrics(tmp_path / "metrics.jsonl") == ROWS


def test_a_line_that_was_cut_short_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.write(ROWS)
    path.write_text(path.read_text()[:-7])
    assert read_metrics(path) == ROWS[:2]


def test_rewinding_forgets_what_comes_after_a_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    evaluations = [{"kind": "held_out", "step": step, "nats": 1.0} for step in (1, 2)]
    with MetricsLog(path) as log:
        log.write([ROWS[0], evaluations[0], ROWS[1], evaluations[1], ROWS[2]])
    rewind(path, 2)
    assert read_metrics(path) == [ROWS[0], evaluations[0], ROWS[1]]


def test_rewinding_a_run_that_wrote_nothing_is_no_error(tmp_path):
    rewind(tmp_path / "metrics.jsonl", 5)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_diary_is_refused(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("{not json}\n")
    with pytest.raises(CheckpointError, match="is damaged"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_a_diary_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be written"), MetricsLog(tmp_path):
        pass
