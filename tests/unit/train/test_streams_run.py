"""A state goes from step to step, and through checkpoints to the last bit."""

from typing import Any

import pytest
import torch
from test_resume import told
from tiny_run import tiny_spec

from formers import MLP, Attention, Block, Decoder, Rotary, Window, make, stack
from formers import Causal as Past
from formers.carried import carries
from formers.errors import CheckpointError, ConfigError
from formers.memory import KeepAll
from formers.state import tensors
from formers.tasks import Causal, CausalStreams, causal_task
from formers.train import Run, train
from formers.train.update import Updater


class CarriedForTests(KeepAll):
    carries = True


def carrying(seed: int = 0, dropout: float = 0.1) -> torch.nn.Module:
    attention = Attention(2, pattern=Past() & Window(13), position=Rotary(), memory=CarriedForTests(), dropout=dropout)
    torch.manual_seed(seed)
    return Decoder("carrying", 257, 16, stack(Block((attention, MLP(16))), times=2)).build()


def transformer_xl(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    given = {"vocab": 257, "dim": 16, "depth": 2, "heads": 2, "hidden": 16, "segment": 16, "memory": 24}
    return make("transformer_xl", **given).build()


class StopsAt(CausalStreams):
    step = 3

    def batch(self, step: int) -> Any:
        if step == self.step:
            raise KeyboardInterrupt
        return super().batch(step)


def test_what_carries_is_found_in_a_spec() -> None:
    assert carries(carrying().spec)
    assert not carries(Decoder("plain", 257, 16, (Block((Attention(2), MLP(16))),)))


def test_a_model_gets_the_task_that_fits_it(prepared, run, quiet) -> None:
    spec = tiny_spec()
    assert type(causal_task(prepared, spec, carrying().spec)) is CausalStreams
    with pytest.raises(ConfigError, match="train it on CausalStreams"):
        train(carrying(), Causal(prepared, spec), spec, run, console=quiet)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_loss_of_a_step_is_that_of_the_row_read_at_once(prepared, accumulation: int) -> None:
    """With parameters that stand still: a step sees what the rows of the steps before it held, and learns nothing there."""
    spec = tiny_spec(accumulation=accumulation, clip=1e-12)
    model, task = carrying(dropout=0.0), CausalStreams(prepared, spec)
    update = Updater(model, task, spec, torch.optim.SGD(model.parameters(), 0.0), torch.device("cpu"))
    rows = torch.cat([task.batch(step)["inputs"] for step in (1, 2, 3)], 1)
    targets = torch.cat([task.batch(step)["targets"] for step in (1, 2, 3)], 1)
    with torch.no_grad():
        nats = torch.nn.functional.cross_entropy(model(rows).logits.mT, targets, reduction="none")
    for step, wanted in enumerate(nats.split(16, 1), 1):
        torch.testing.assert_close(update(step).loss, wanted.mean())
        assert len(update.carried) == accumulation
        assert not any(t.requires_grad for t in tensors(update.carried))


def test_a_pass_begins_without_a_past(prepared) -> None:
    spec = tiny_spec(batch=64, length=32, clip=1e-12)
    model, task = carrying(dropout=0.0), CausalStreams(prepared, spec)
    update = Updater(model, task, spec, torch.optim.SGD(model.parameters(), 0.0), torch.device("cpu"))
    begins = next(step for step in range(2, 100) if not task.continues(step))
    losses = {step: update(step).loss for step in range(1, begins + 2)}
    batch = task.batch(begins)
    with torch.no_grad():
        torch.testing.assert_close(losses[begins] * batch["targets"].numel(), task.loss(model, batch).nats)
        after = task.batch(begins + 1)
        alone = task.loss(model, after).nats / after["targets"].numel()
    if task.continues(begins + 1):
        assert not torch.isclose(losses[begins + 1], alone, rtol=1e-6)


@pytest.mark.parametrize(("built", "accumulation"), [(carrying, 2), (transformer_xl, 1)])
def test_a_run_that_broke_off_goes_on_to_the_last_bit(tmp_path, prepared, quiet, built: Any, accumulation: int) -> None:
    spec = tiny_spec(steps=8, accumulation=accumulation, evaluate_every=2, checkpoint_every=2)
    whole = train(built(), CausalStreams(prepared, spec), spec, tmp_path / "whole", console=quiet)
    task = StopsAt(prepared, spec)
    task.step = 6
    with pytest.raises(KeyboardInterrupt):
        train(built(), task, spec, tmp_path / "parts", console=quiet)
    rest = train(built(9), CausalStreams(prepared, spec), spec, tmp_path / "parts", console=quiet, resume=True)
    assert rest.finished and rest.held_out == whole.held_out
    assert told(tmp_path / "parts") == told(tmp_path / "whole")
    for name in ("model.safetensors", "carried.safetensors"):
        last = [tmp_path / run / "checkpoints" / "step-000008" / name for run in ("parts", "whole")]
        assert last[0].read_bytes() == last[1].read_bytes()


def test_a_checkpoint_without_its_state_is_not_gone_on_from(run, prepared, quiet) -> None:
    spec = tiny_spec(steps=4, checkpoint_every=2)
    task = StopsAt(prepared, spec)
    with pytest.raises(KeyboardInterrupt):
        train(carrying(), task, spec, run, console=quiet)
    (Run(run).checkpoints()[-1] / "carried.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"carried\.safetensors cannot be read"):
        train(carrying(), CausalStreams(prepared, spec), spec, run, console=quiet, resume=True)
