"""A traced step against steps that really run."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from formers import MEMBERS, make
from formers.bench.memory import MIB, in_fresh_process, resident
from formers.encoder_decoder import EncoderDecoder
from formers.plan import depth
from formers.plan.ledger import Ledger, highest
from formers.plan.measured import measured_step
from formers.plan.rehearsal import Rehearsal
from formers.plan.step import CPU, traced_step
from formers.plan.training import recomputing
from formers.train import Adafactor, AdamW, TrainSpec
from formers.train.update import Updater

TRAINING = TrainSpec(steps=1, batch=4, length=24)


class Counted(TorchDispatchMode):
    """Code runs as ever, and the storages of all that it makes are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self.ledger.see(tensor)
        return out


def counted_step(spec: Any, training: TrainSpec) -> int:
    """Bytes at the highest of the second step of a model that really trains."""
    with Counted() as run:
        model = spec.build().train()
        optimizer = training.optimizer.build(model)
        update = Updater(model, Rehearsal(spec, training), training, optimizer, CPU)
        update(1)
        run.ledger.phase = "step"
        run.ledger.history.append(("step", dict(run.ledger.now)))
        update(2)
        run.ledger.phase = None
    return sum(highest([alive for _, alive in run.ledger.history]).values())


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("gpt2", {}),
        ("gpt2", {"loss_chunk": 8}),
        ("gpt2", {"optimizer": Adafactor()}),
        ("llama", {}),
        ("bert", {}),
        ("transformer", {}),
    ],
)
def test_a_traced_step_holds_what_a_real_one_does(name: str, changes: dict[str, Any]) -> None:
    spec, training = make(name, **MEMBERS[name].small), TRAINING.replace(**changes)
    assert traced_step(spec, training).total == pytest.approx(counted_step(spec, training), rel=0.01)


def test_pieces_of_a_batch_keep_gradients_between_them() -> None:
    spec, training = make("gpt2", **MEMBERS["gpt2"].small), TRAINING.replace(accumulation=2)
    assert traced_step(spec, training).total == pytest.approx(counted_step(spec, training), rel=0.01)
    assert traced_step(spec, training).total < traced_step(spec, TRAINING).total


@pytest.mark.parametrize("name", ["gpt2", "reformer", "transformer"])
def test_a_deep_model_is_told_from_shallow_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make(name, **MEMBERS[name].small | {"depth": 8 if name == "reformer" else 4})
    assert depth.stretches(spec) == ([4, 4] if isinstance(spec, EncoderDecoder) else [4])
    told = traced_step(spec, TRAINING)
    monkeypatch.setattr(depth, "FEW", 100)
    whole = traced_step(spec, TRAINING)
    assert told.total == pytest.approx(whole.total, rel=0.03)
    assert told.passes == pytest.approx(whole.passes, rel=0.03)


def test_deep_models_that_are_recomputed_are_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = recomputing(make("llama", vocab=100, dim=64, depth=12, heads=2, kv_heads=2, hidden=256))
    training = TRAINING.replace(precision="bf16", length=16)
    told = traced_step(spec, training).total
    monkeypatch.setattr(depth, "FEW", 100)
    assert told == pytest.approx(traced_step(spec, training).total, rel=0.03)


@pytest.mark.parametrize("name", ["terraformer", "performer", "switch", "universal", "transformer_xl"])
def test_choices_of_content_are_traced_too(name: str) -> None:
    spec = make(name, **MEMBERS[name].small)
    step = traced_step(spec, TRAINING)
    numbers = sum(parameter.numel() for parameter in spec.build().parameters())
    assert step.peaks["update"]["gradients"] <= 4 * numbers <= step.peaks["update"]["weights"]
    assert step.peaks["update"]["optimizer"] == pytest.approx(8 * numbers, rel=0.05)
    assert step.total > 16 * numbers or step.peak["activations"] > 0


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_nothing_is_allocated(name: str) -> None:
    spec = make(name, dim=16_384, depth=96, heads=128, hidden=65_536, length=2048)
    before = resident()
    step = traced_step(spec, TrainSpec(steps=1, batch=8, length=2048, optimizer=AdamW()))
    assert resident() - before < 200 * MIB
    assert step.peak["weights"] > 10**12
    assert step.peak["optimizer"] == pytest.approx(2 * step.peak["weights"], rel=1e-3)


def test_random_numbers_stand_where_they_stood() -> None:
    before = torch.get_rng_state()
    traced_step(make("gpt2", **MEMBERS["gpt2"].small), TRAINING)
    torch.testing.assert_close(torch.get_rng_state(), before)


def test_a_plan_is_within_a_tenth_of_what_a_process_takes() -> None:
    small = make("gpt2", **MEMBERS["gpt2"].small)
    spec = make("gpt2", vocab=2000, dim=256, depth=3, heads=4, length=256)
    training = TrainSpec(steps=1, batch=8, length=256)
    measured = in_fresh_process(measured_step, spec, training, small)
    assert traced_step(spec, training).total == pytest.approx(measured, rel=0.1)
