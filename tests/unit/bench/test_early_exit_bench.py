"""The bench of early exits, at a size too small to mean anything."""

from pathlib import Path

from formers.bench.early import TINY
from formers.bench.registry import BENCHES
from formers.bench.runner import run_suite


def test_it_runs_and_finds_its_model_again(tmp_path: Path) -> None:
    import formers.bench.cases  # noqa: F401 - registers them

    assert BENCHES.find("early-exit")
    for _ in range(2):
        rows = run_suite(BENCHES, "early-exit", quick=True, folder=tmp_path, only="calibrated to a risk")
        assert rows[0].name == "unreadable bytes restored"
        assert rows[1].name == "tokens written by torch"
        assert rows[1].value is not None
    assert (tmp_path / f"calm-restoring-{TINY.dim}-{TINY.depth}-{TINY.hidden}-{TINY.steps}" / "spec.json").is_file()
    assert (tmp_path / "calibration.png").is_file()
