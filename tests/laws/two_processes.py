"""A program that trains every member in one process and, sharded, in two; and mixtures, their experts divided, in four.

Prints one line of JSON for each: what one process loses in each step, and what several lose, or why they could not. All
are forks of one process, so that PyTorch is loaded once.
"""

import json
import re
import sys
from typing import Any

import torch
from ranks import together
from subjects import SPECS, build, marks_for, retrieved_for, tokens

from formers import MEMBERS, EncoderDecoder
from formers.distributed import Distribution
from formers.distributed.form import form
from formers.spec import from_json, to_json
from formers.tasks.chunked_loss import lost
from formers.train import AdamW, Constant, TrainSpec
from formers.train.task import Batch, Loss, Size
from formers.train.update import Updater

# Parts whose training draws for each row: they are held to this law as they are in evaluation.
NOISY = ("SparseFF(", "Sinkhorn")
ROWS, LENGTH = 4, 32
SPEC = TrainSpec(3, ROWS, LENGTH, optimizer=AdamW(3e-3), schedule=Constant(), clip=1.0)


class Rows:
    """Tokens, each of which is to be told from those before it, or by a model without a head, large hidden states."""

    def __init__(self, spec: Any) -> None:
        self._spec = spec

    def batch(self, step: int) -> Batch:
        return {"inputs": tokens(ROWS, LENGTH, seed=step), "source": tokens(ROWS, 9, seed=step + 10)}

    def size(self, batch: Batch) -> Size:
        return Size(batch["inputs"].numel(), batch["inputs"].numel())

    def loss(self, model: Any, batch: Batch) -> Loss:
        inputs = batch["inputs"]
        if isinstance(self._spec, EncoderDecoder):
            return lost(model, inputs.roll(-1, 1), batch["source"], inputs)
        given = retrieved_for(self._spec, inputs)
        marks = marks_for(self._spec, inputs, None)
        if self._spec.head is None:
            out = model(inputs, marks=marks, remember=False)
            return Loss(out.hidden.square().sum(), out.losses, out.records)
        return lost(model, inputs.roll(-1, 1), inputs, marks=marks, **given)


def losses(spec: Any, spread: Distribution) -> list[tuple[float, float]]:
    """The loss and the norm of the gradient in each step; the third has met two updates."""
    model: Any = build(spec).train(not any(part in repr(spec) for part in NOISY))
    processes, place = form(model, SPEC, "cpu", spread)
    update = Updater(model, Rows(spec), SPEC, SPEC.optimizer.build(model), place, processes=processes)
    made = [update(step) for step in range(1, SPEC.steps + 1)]
    return [(float(step.loss), float(step.norm)) for step in made]


def quiet(spec: Any) -> Any:
    """The spec without what each row draws for itself: that goes by the process."""
    return from_json(re.sub(r'"(\w*dropout|jitter)": [0-9.e-]+', r'"\1": 0.0', to_json(spec)), spec.name)


def compare(size: int, lot: dict[str, tuple[Any, Distribution]]) -> int:
    """The highest exit code of several processes that train each of a lot."""
    alone = {name: losses(spec, Distribution()) for name, (spec, _) in lot.items()}

    def work(rank: int) -> None:
        for name, (spec, spread) in lot.items():
            try:
                found: Any = losses(spec, spread)
            except Exception as error:
                found = f"{type(error).__name__}: {error}"
            if rank == 0:
                print(json.dumps([name, alone[name], found]), flush=True)

    return max(map(abs, together(size, work)))


def main() -> int:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    members = {name: quiet(SPECS[name]) for name in SPECS if name in MEMBERS}
    mixture = from_json(to_json(members["switch"]).replace('"experts": 3', '"experts": 4'), "switch")
    halves = {shard: (mixture, Distribution(shard, divide_experts=2)) for shard in ("data", "full")}
    return compare(2, {name: (spec, Distribution("full")) for name, spec in members.items()}) or compare(4, halves)


if __name__ == "__main__":
    sys.exit(main())
