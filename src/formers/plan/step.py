"""One step of training, of which only the shapes are worked out: what it holds at its highest, and what it moves."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from formers.plan.depth import extrapolated, stretches
from formers.plan.ledger import Bytes, Ledger, highest
from formers.plan.rehearsal import Rehearsal
from formers.plan.state import state_bytes
from formers.plan.trace import Trace, tracing
from formers.state import tensors
from formers.train import TrainSpec
from formers.train.processes import OneProcess
from formers.train.task import Batch, Loss
from formers.train.update import Updater

FORWARD, BACKWARD, UPDATE = "forward", "backward", "update"
WINDOW = 0.6  # of the way back of the shallowest model: of all that is added up, its beginning and its end
PURPOSES = ("weights", "gradients", "optimizer", "carried", "activations")
MOVED = ("moved by passes", "moved by the update")
CPU = torch.device("cpu")
LONGEST = 32  # steps until a carried state is taken to be full


@dataclass(frozen=True)
class Step:
    """Bytes of a training step on one device. peaks: of each phase, by purpose, at its highest.

    passes, update: bytes that are read and written there and back, and by the optimiser.
    """

    peaks: dict[str, Bytes]
    passes: float
    update: float

    @property
    def peak(self) -> Bytes:
        """By purpose, when they are most."""
        return highest(list(self.peaks.values()))

    @property
    def total(self) -> int:
        return sum(self.peak.values())

    def in_pieces(self, pieces: int) -> "Step":
        """A step over so many batches like this one: gradients wait from the first to the last, as do carried states."""
        if pieces == 1:
            return self
        waiting = self.peaks[UPDATE].get("gradients", 0)
        peaks = {}
        for phase, parts in self.peaks.items():
            held = parts | {"gradients": waiting}
            peaks[phase] = held | ({"carried": pieces * parts["carried"]} if "carried" in parts else {})
        return Step(peaks, pieces * self.passes, self.update)


def traced_step(spec: Any, training: TrainSpec, *, gpu: bool = False) -> Step:
    """A step of a model of this spec after the first, on one device, of which `training.batch` are the rows.

    gpu: without the kernels that only a CPU has. Of a depth that repeats itself one and two periods are worked out, and of
    an accumulated batch one piece. Raises ConfigError for a spec that cannot be built.
    """
    pieces = training.accumulation
    one = training.replace(batch=training.batch // pieces, accumulation=1, compile=False)
    steps: list[_Traced] = []

    def measure(shallow: Any) -> dict[str, float]:
        steps.append(_traced(shallow, one, gpu))
        return _flat(steps[-1], steps[0] if stretches(spec) else None)

    found = extrapolated(measure, spec)
    peaks: dict[str, Bytes] = {}
    for name, value in found.items():
        phase, _, purpose = name.partition("/")
        if purpose:
            peaks.setdefault(phase, {})[purpose] = max(0, round(value))
    return Step(peaks, found[MOVED[0]], found[MOVED[1]]).in_pieces(pieces)


class _Traced(NamedTuple):
    """What was alive whenever it had grown, by phase, and what was read and written."""

    alive: dict[str, list[Bytes]]
    moved: tuple[float, float]


def _flat(step: _Traced, shallowest: _Traced | None) -> dict[str, float]:
    """The highest of each phase, under names of phase and purpose.

    On the way back kept activations go while gradients come, so that one end of it or the other is the highest, and which
    of them, depends on how deep the model is. The beginnings of models that differ in their depth are the same operators,
    and so are their ends: each is told for itself, in as many entries as the shallowest has.
    """
    alive = dict(step.alive)
    if shallowest is not None:
        back, count = alive.pop(BACKWARD), int(WINDOW * len(shallowest.alive[BACKWARD])) + 1
        alive |= {f"{BACKWARD}, its beginning": back[:count], f"{BACKWARD}, its end": back[-count:]}
    peaks = {phase: highest(entries) for phase, entries in alive.items()}
    held = {f"{phase}/{name}": float(size) for phase, parts in peaks.items() for name, size in parts.items()}
    return held | dict(zip(MOVED, step.moved, strict=True))


class _Watched(Rehearsal):
    """A rehearsal that says when the loss is known, and so the way back begins."""

    def __init__(self, model: Any, spec: TrainSpec, ledger: Ledger) -> None:
        super().__init__(model, spec)
        self._ledger = ledger

    def loss(self, model: Any, batch: Batch, state: Any = None) -> Loss:
        begin_phase(self._ledger, FORWARD)
        loss = super().loss(model, batch, state)
        begin_phase(self._ledger, BACKWARD)
        return loss


class _Alone(OneProcess):
    """One process, which notes when the way back is done, and what had been read and written by then."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace, self.moved = trace, 0

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """There are none to add, but all are there."""
        begin_phase(self._trace.ledger, UPDATE)
        self.moved = self._trace.moved


def begin_phase(ledger: Ledger, phase: str) -> None:
    """From here on, and with what is alive already, if the ledger keeps a history."""
    if ledger.phase is not None:
        ledger.phase = phase
        ledger.history.append((phase, dict(ledger.now)))


def _traced(spec: Any, training: TrainSpec, gpu: bool) -> _Traced:
    with tracing(gpu=gpu) as trace:
        ledger = trace.ledger
        model = spec.build().train()
        for tensor in (*model.parameters(), *model.buffers()):
            ledger.name(tensor, "weights")
        optimizer = training.optimizer.build(model)
        _prepare(model, optimizer, ledger)
        task = _Watched(spec, training, ledger)
        watched = _Alone(trace)
        update = Updater(model, task, training, optimizer, CPU, processes=watched)
        for tensor in tensors(filled(update, task)):
            ledger.name(tensor, "carried")
        ledger.phase, trace.moved = FORWARD, 0
        update(LONGEST + 1)
        ledger.phase = None
        alive: dict[str, list[Bytes]] = {}
        for phase, entry in ledger.history:
            alive.setdefault(phase, []).append(entry)
        return _Traced(alive, (watched.moved, trace.moved - watched.moved))


def filled(update: Updater, task: Rehearsal) -> Any:
    """Train until the state that goes on from step to step grows no more; it is given."""
    size = -1
    for step in range(1, LONGEST + 1):
        if not task.continues(step):
            break
        update(step)
        before, size = size, state_bytes(update.carried)
        if size <= before:
            break
    return update.carried


def _prepare(model: nn.Module, optimizer: torch.optim.Optimizer, ledger: Ledger) -> None:
    """Make the optimiser's state, as a first step would, and have gradients be known as such."""
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learned:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    for tensor in tensors(tuple(optimizer.state.values())):
        ledger.name(tensor, "optimizer")
    for parameter in learned:
        parameter.register_post_accumulate_grad_hook(lambda p: ledger.name(_gradient(p), "gradients"))


def _gradient(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        raise TypeError("a gradient has been accumulated, and there is none")
    return parameter.grad
