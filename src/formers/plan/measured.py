"""The memory that training and decoding really take, to hold plans against."""

import gc
from typing import Any

import torch

from formers.bench.memory import high_water, resident
from formers.plan.rehearsal import Rehearsal
from formers.plan.state import state_bytes
from formers.plan.step import CPU, LONGEST, filled
from formers.train import TrainSpec
from formers.train.update import Updater

TINY = 64  # tokens of the rows that load all code


def measured_step(spec: Any, training: TrainSpec, small: Any) -> int:
    """Bytes that a later step of training holds at its highest, weights included. Use it in a fresh process.

    small: a spec of the same kind, which runs first, so that all code and its tables are loaded.
    """
    short = training.replace(batch=2 * training.accumulation, length=min(TINY, small.max_length or TINY))
    _train(small, short)
    gc.collect()
    before = resident()
    return _train(spec, training) - before


def measured_state(spec: Any, length: int) -> int:
    """Bytes that a model of this spec keeps after so many tokens, the last of them decoded by itself."""
    model, tokens = spec.build().eval(), torch.zeros(1, length, dtype=torch.int64)
    with torch.no_grad():
        state = model(tokens[:, :-1], logits_at=slice(-1, None)).state if length > 1 else None
        return state_bytes(model.step(tokens[:, -1:], state).state)


def _train(spec: Any, training: TrainSpec) -> int:
    torch.manual_seed(0)
    model = spec.build().train()
    task = Rehearsal(spec, training)
    update = Updater(model, task, training, training.optimizer.build(model), CPU)
    filled(update, task)
    update(LONGEST + 1)
    return high_water(lambda: update(LONGEST + 2))
