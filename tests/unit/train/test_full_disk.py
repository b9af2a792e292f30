"""A disk that fills up in the middle of a run costs the updates since the last checkpoint, and no more."""

import resource

import pytest
from tiny_run import tiny_model, tiny_spec

from formers.errors import CheckpointError
from formers.tasks import Causal
from formers.train import train
from formers.train.metrics import read_metrics

SMALL = 20_000


@pytest.fixture
def limits():
    """The most bytes that a file may have, which the test may lower."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_run_stops_clearly_and_goes_on_when_there_is_room(tmp_path, prepared, quiet, limits):
    class FillsUp(Causal):
        def batch(self, step):
            if step == 5:
                limits(SMALL)
            return super().batch(step)

    spec, run = tiny_spec(checkpoint_every=2), tmp_path / "run"
    with pytest.raises(CheckpointError, match=r"step-000006 cannot be written: .*File too large.* earlier checkpoints"):
        train(tiny_model(), FillsUp(prepared, spec), spec, run, console=quiet)
    limits(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-000002", "step-000004"]
    train(tiny_model(seed=3), Causal(prepared, spec), spec, run, console=quiet, resume=True)
    train(tiny_model(), Causal(prepared, spec), spec, tmp_path / "whole", console=quiet)
    losses = [
        [row["loss"] for row in read_metrics(folder / "metrics.jsonl") if row["kind"] == "train"]
        for folder in (run, tmp_path / "whole")
    ]
    assert losses[0] == losses[1]


def test_metrics_that_cannot_be_written_stop_the_run_clearly(run, prepared, quiet, limits):
    class FillsUp(Causal):
        def batch(self, step):
            limits(10)
            return super().batch(step)

    spec = tiny_spec()
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl cannot be written: File too large"):
        train(tiny_model(), FillsUp(prepared, spec), spec, run, console=quiet)
