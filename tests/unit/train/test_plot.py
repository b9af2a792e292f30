import pytest
from PIL import Image

from formers.errors import CheckpointError
from formers.train.metrics import MetricsLog
from formers.train.plot import plot_loss


def diary(path, steps):
    with MetricsLog(path) as log:
        log.write({"kind": "train", "step": step, "loss": 5.0 / step} for step in range(1, steps + 1))
        log.write({"kind": "held_out", "step": step, "nats": 6.0 / step} for step in range(1, steps + 1, 100))


@pytest.mark.parametrize("steps", [0, 1, 1000])
def test_a_run_of_any_length_makes_a_picture(tmp_path, steps):
    diary(tmp_path / "metrics.jsonl", steps)
    plot_loss(tmp_path / "metrics.jsonl", tmp_path / "loss.png")
    with Image.open(tmp_path / "loss.png") as picture:
        assert picture.size == (960, 600)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss.png", "metrics.jsonl"]


def test_a_picture_that_cannot_be_written_is_refused(tmp_path):
    diary(tmp_path / "metrics.jsonl", 3)
    with pytest.raises(CheckpointError, match="cannot be written"):
        plot_loss(tmp_path / "metrics.jsonl", tmp_path / "none" / "loss.png")
