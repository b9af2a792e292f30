"""A run that was stopped and resumed is the run that was never stopped, to the last bit."""

import os
import signal

import pytest
from tiny_run import tiny_model, tiny_spec

from formers.errors import CheckpointError
from formers.tasks import Causal, prepare
from formers.train import Adafactor, AdamW, Run, train
from formers.train.metrics import read_metrics


class StoppedAt(Causal):
    """A task during whose update `step` somebody presses Ctrl-C."""

    step = 3

    def batch(self, step):
        if step == self.step:
            os.kill(os.getpid(), signal.SIGINT)
        return super().batch(step)


def told(run):
    """The metrics, without the time that things took."""
    return [
        {name: value for name, value in row.items() if name != "seconds"} for row in read_metrics(run / "metrics.jsonl")
    ]


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("optimizer", [AdamW(), Adafactor()])
def test_three_updates_and_three_more_are_six(tmp_path, prepared, quiet, optimizer, accumulation):
    spec = tiny_spec(optimizer=optimizer, accumulation=accumulation, evaluate_every=2, checkpoint_every=5)
    whole = train(tiny_model(), Causal(prepared, spec), spec, tmp_path / "whole", console=quiet)
    stopped = train(tiny_model(), StoppedAt(prepared, spec), spec, tmp_path / "parts", console=quiet)
    assert (stopped.finished, stopped.position.step) == (False, 3)
    rest = train(tiny_model(seed=9), Causal(prepared, spec), spec, tmp_path / "parts", console=quiet, resume=True)
    assert rest.finished and rest.held_out == whole.held_out
    assert told(tmp_path / "parts") == told(tmp_path / "whole")
    last = [tmp_path / run / "checkpoints" / "step-000006" / "model.safetensors" for run in ("parts", "whole")]
    assert last[0].read_bytes() == last[1].read_bytes()


def test_resuming_at_an_evaluation_makes_it_again_once(run, prepared, quiet):
    spec = tiny_spec(evaluate_every=3, checkpoint_every=3)
    train(tiny_model(), StoppedAt(prepared, spec), spec, run, console=quiet)
    train(tiny_model(), Causal(prepared, spec), spec, run, console=quiet, resume=True)
    assert [row["step"] for row in told(run) if row["kind"] == "held_out"] == [3, 6]


def test_a_finished_run_can_be_resumed_and_changes_nothing(run, prepared, quiet):
    spec = tiny_spec()
    first = train(tiny_model(), Causal(prepared, spec), spec, run, console=quiet)
    before = told(run)
    again = train(tiny_model(seed=5), Causal(prepared, spec), spec, run, console=quiet, resume=True)
    assert (again.finished, again.held_out) == (True, first.held_out)
    assert told(run) == before


def test_a_run_without_checkpoint_starts_anew(run, prepared, quiet):
    spec = tiny_spec()
    train(tiny_model(), Causal(prepared, spec), spec, run, console=quiet)
    before = told(run)
    (run / "checkpoints" / "step-000006").rename(run / "checkpoints" / "step-000006.tmp")
    train(tiny_model(), Causal(prepared, spec), spec, run, console=quiet, resume=True)
    assert told(run) == before


def test_a_changed_training_spec_is_refused_with_the_difference(run, prepared, quiet):
    spec = tiny_spec()
    train(tiny_model(), Causal(prepared, spec), spec, run, console=quiet)
    changed = spec.replace(optimizer=AdamW(learning_rate=0.5), batch=2)
    with pytest.raises(CheckpointError) as caught:
        train(tiny_model(), Causal(prepared, changed), changed, run, console=quiet, resume=True)
    assert "batch: 4 was saved, 2 is given" in str(caught.value)
    assert "optimizer.learning_rate: 0.001 was saved, 0.5 is given" in str(caught.value)


def test_what_does_not_touch_the_losses_may_change(run, prepared, quiet):
    spec = tiny_spec()
    train(tiny_model(), StoppedAt(prepared, spec), spec, run, console=quiet)
    changed = spec.replace(keep=1, checkpoint_every=1, evaluate_every=1, evaluate_tokens=50)
    train(tiny_model(), Causal(prepared, changed), changed, run, console=quiet, resume=True)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-000006"]


def test_another_model_is_refused_with_the_difference(run, prepared, quiet):
    spec = tiny_spec()
    train(tiny_model(), Causal(prepared, spec), spec, run, console=quiet)
    with pytest.raises(CheckpointError, match=r"embedding\.dropout: 0\.1 was saved, 0\.0 is given"):
        train(tiny_model(dropout=0.0), Causal(prepared, spec), spec, run, console=quiet, resume=True)


def test_other_data_is_refused(run, prepared, quiet, tmp_path):
    spec = tiny_spec()
    train(tiny_model(), Causal(prepared, spec), spec, run, console=quiet)
    other = prepare(["another text, " * 99], tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"other data \(train, held_out changed since\)"):
        train(tiny_model(), Causal(other, spec), spec, run, console=quiet, resume=True)


def test_a_run_is_not_overwritten_and_not_invented(run, prepared, quiet):
    spec = tiny_spec()
    with pytest.raises(CheckpointError, match="holds no run to resume"):
        train(tiny_model(), Causal(prepared, spec), spec, run, console=quiet, resume=True)
    Run(run).start(tiny_model().spec, tiny_spec(steps=99), None)  # one that came to nothing is no obstacle
    train(tiny_model(), Causal(prepared, spec), spec, run, console=quiet)
    with pytest.raises(CheckpointError, match="holds a trained model already"):
        train(tiny_model(), Causal(prepared, spec), spec, run, console=quiet)
