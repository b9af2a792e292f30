import json
import os
import signal

import pytest
import torch
from tiny_run import tiny_model, tiny_spec

from formers.data.tokenizer import ByteTokenizer
from formers.errors import CheckpointError, ConfigError
from formers.tasks import Causal, Loss
from formers.train import AdamW, Constant, DivergedError, load_model, train
from formers.train.metrics import read_metrics


def rows(run, kind):
    return [row for row in read_metrics(run / "metrics.jsonl") if row["kind"] == kind]


def test_a_run_leaves_everything_that_is_needed(run, prepared, quiet):
    spec = tiny_spec(steps=5, checkpoint_every=2, evaluate_every=2)
    outcome = train(tiny_model(), Causal(prepared, spec), spec, run, tokenizer=prepared.tokenizer, console=quiet)
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints",
        "loss.png",
        "metrics.jsonl",
        "spec.json",
        "tokenizer_config.json",
        "train.json",
    ]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-000004", "step-000005"]
    assert [row["step"] for row in rows(run, "train")] == [1, 2, 3, 4, 5]
    assert [(row["step"], row["tokens"]) for row in rows(run, "held_out")][:2] == [(2, 200), (4, 200)]
    assert rows(run, "held_out")[2] == {"kind": "held_out", "step": 5, **outcome.held_out}
    assert outcome.held_out["tokens"] == len(prepared.held_out)
    assert rows(run, "train")[-1]["tokens"] == outcome.position.tokens == 5 * 4 * 16


def test_a_model_learns(run, prepared, quiet):
    spec = tiny_spec(steps=60, batch=8, optimizer=AdamW(learning_rate=1e-2), schedule=Constant(5))
    train(tiny_model(dropout=0.0), Causal(prepared, spec), spec, run, console=quiet)
    losses = [row["loss"] for row in rows(run, "train")]
    assert losses[0] > 5.4 and losses[-1] < 2.5
    assert rows(run, "held_out")[-1]["nats"] < 2.6


def test_the_trained_model_is_the_saved_one(run, prepared, quiet):
    spec, model = tiny_spec(), tiny_model()
    train(model, Causal(prepared, spec), spec, run, console=quiet)
    torch.testing.assert_close(load_model(run).state_dict(), model.state_dict(), rtol=0, atol=0)


def test_accumulation_changes_memory_and_nothing_else(tmp_path, prepared, quiet):
    losses = []
    for accumulation in (1, 2, 4):
        spec = tiny_spec(accumulation=accumulation)
        run = tmp_path / str(accumulation)
        train(tiny_model(dropout=0.0), Causal(prepared, spec), spec, run, console=quiet)
        losses.append([row["loss"] for row in rows(run, "train")])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)


class Ponders(Causal):
    """A task whose model adds two losses of its own."""

    def loss(self, model, batch):
        nats = super().loss(model, batch).nats
        weight = model.func.embedding.tokens.weight
        return Loss(nats, {"ponder": weight.square().mean(), "balance": torch.tensor(2.0)})


def test_losses_of_the_model_are_logged_by_name_and_weighted(tmp_path, prepared, quiet):
    first = {}
    for weight, accumulation in ((0.0, 1), (1e4, 1), (1e4, 2)):
        spec = tiny_spec(steps=2, auxiliary=weight, accumulation=accumulation)
        run = tmp_path / f"{weight}-{accumulation}"
        train(tiny_model(dropout=0.0), Ponders(prepared, spec), spec, run, console=quiet)
        first[weight, accumulation] = rows(run, "train")[0]
        assert rows(run, "train")[0]["losses"] == {"ponder": pytest.approx(4e-4, rel=0.1), "balance": 2.0}
    assert first[1e4, 1]["gradient_norm"] > 3 * first[0.0, 1]["gradient_norm"]
    assert first[1e4, 2]["gradient_norm"] == pytest.approx(first[1e4, 1]["gradient_norm"], rel=1e-4)
    assert first[1e4, 1]["loss"] == first[0.0, 1]["loss"]


class Breaks(Causal):
    """A task whose loss is not a number at update 5."""

    def loss(self, model, batch):
        loss = super().loss(model, batch)
        return loss._replace(nats=loss.nats * float("nan")) if self.broken else loss

    def batch(self, step):
        self.broken = step == 5
        return super().batch(step)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_its_checkpoint(run, prepared, quiet):
    spec = tiny_spec(steps=20, checkpoint_every=2)
    with pytest.raises(DivergedError, match="the loss became nan at step 5"):
        train(tiny_model(), Breaks(prepared, spec), spec, run, console=quiet)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-000002", "step-000004"]
    assert all(torch.isfinite(tensor).all() for tensor in load_model(run).state_dict().values())
    assert [row["step"] for row in rows(run, "train")] == [1, 2, 3, 4]


def test_a_gradient_that_is_not_finite_stops_the_run(run, prepared, quiet):
    class Explodes(Causal):
        def loss(self, model, batch):
            loss = super().loss(model, batch)
            weight = model.func.embedding.tokens.weight
            return loss._replace(nats=loss.nats + (weight - weight.detach()).abs().sqrt().sum())

    spec = tiny_spec(steps=20)
    with pytest.raises(DivergedError, match=r"the gradient became (nan|inf) at step 1"):
        train(tiny_model(), Explodes(prepared, spec), spec, run, console=quiet)


class Impatient(Causal):
    """A task during whose evaluation somebody presses Ctrl-C."""

    def evaluate(self, model, limit=None, tick=None):
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the evaluation went on")


def test_ctrl_c_breaks_an_evaluation_off_and_saves(run, prepared, quiet):
    spec = tiny_spec(evaluate_every=4)
    outcome = train(tiny_model(), Impatient(prepared, spec), spec, run, console=quiet)
    assert (outcome.finished, outcome.position.step, outcome.held_out) == (False, 4, {})
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-000004"]
    assert "stopped after step 4 of 6, and saved; resume the run in" in quiet.file.getvalue().replace("\n", " ")


def test_a_second_ctrl_c_breaks_in(run, prepared, quiet):
    class Desperate(Causal):
        def batch(self, step):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            return super().batch(step)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_model(), Desperate(prepared, tiny_spec()), tiny_spec(), run, console=quiet)
    assert signal.getsignal(signal.SIGINT) is before


def test_bf16_trains_with_parameters_in_fp32(tmp_path, prepared, quiet):
    losses = {}
    for precision in ("fp32", "bf16"):
        spec, model = tiny_spec(precision=precision), tiny_model(dropout=0.0)
        train(model, Causal(prepared, spec), spec, tmp_path / precision, console=quiet)
        losses[precision] = [row["loss"] for row in rows(tmp_path / precision, "train")]
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=2e-3)
    assert losses["bf16"] != losses["fp32"]


def test_the_callers_chance_and_mode_are_left_alone(run, prepared, quiet):
    spec, model = tiny_spec(), tiny_model().eval()
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    train(model, Causal(prepared, spec), spec, run, console=quiet)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    assert not model.training


def test_the_seed_decides(tmp_path, prepared, quiet):
    losses = []
    for run, seed in (("a", 1), ("b", 1), ("c", 2)):
        spec = tiny_spec(seed=seed)
        train(tiny_model(), Causal(prepared, spec), spec, tmp_path / run, console=quiet)
        losses.append([row["loss"] for row in rows(tmp_path / run, "train")])
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_what_is_wrong_is_told_before_a_folder_exists(run, prepared, quiet):
    spec = tiny_spec()
    with pytest.raises(ConfigError, match="steps=0"):
        train(tiny_model(), Causal(prepared, spec), spec.replace(steps=0), run, console=quiet)
    with pytest.raises(ConfigError, match="'gpu' is no device"):
        train(tiny_model(), Causal(prepared, spec), spec, run, device="gpu", console=quiet)
    with pytest.raises(ConfigError, match="has no cuda:99"):
        train(tiny_model(), Causal(prepared, spec), spec, run, device="cuda:99", console=quiet)
    assert not run.exists()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, prepared, quiet):
    (tmp_path / "file").write_text("no folder")
    spec = tiny_spec()
    with pytest.raises(CheckpointError, match="cannot hold a run"):
        train(tiny_model(), Causal(prepared, spec), spec, tmp_path / "file" / "run", console=quiet)


def test_the_run_tells_its_specs_in_json(run, prepared, quiet):
    spec, model = tiny_spec(), tiny_model()
    train(model, Causal(prepared, spec), spec, run, tokenizer=ByteTokenizer(), console=quiet)
    assert json.loads((run / "train.json").read_text())["steps"] == 6
    assert (run / "spec.json").read_text() == model.spec.to_json()


def test_a_model_gets_a_seed_of_its_own_for_every_update(tmp_path, prepared, quiet):
    seen = []

    class Listens(Causal):
        def loss(self, model, batch):
            seen.append(model.keywords["seed"])
            return super().loss(model, batch)

    for seed in (1, 1, 2):
        spec = tiny_spec(steps=3, seed=seed)
        train(tiny_model(), Listens(prepared, spec), spec, tmp_path / str(len(seen)), console=quiet)
    assert seen[:3] == seen[3:6]
    assert len(set(seen)) == 6
