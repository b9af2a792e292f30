"""The training loop: updates, checkpoints and evaluations, until the last step or Ctrl-C."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from torch import nn

from formers.data.tokenizer import Tokenizer
from formers.errors import CheckpointError
from formers.spec import Spec
from formers.train.checkpoint import Position, load_carried, load_checkpoint, save_checkpoint
from formers.train.device import AUTO, autocast, pick_device, private_chance
from formers.train.display import Display
from formers.train.interrupt import Interrupt
from formers.train.metrics import MetricsLog, rewind
from formers.train.plot import plot_loss
from formers.train.recorder import Recorder
from formers.train.run import Run
from formers.train.spec import TrainSpec
from formers.train.task import StreamTask, Task
from formers.train.update import Updater


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended. finished: after the last step, and not by Ctrl-C; held_out: the last evaluation."""

    position: Position
    finished: bool
    held_out: dict[str, float] = field(default_factory=dict)


def train(
    model: nn.Module,
    task: Task,
    spec: TrainSpec,
    run: str | Path,
    *,
    tokenizer: Tokenizer | None = None,
    device: str = AUTO,
    resume: bool = False,
    pretrained: bool = False,
    console: Console | None = None,
) -> Outcome:
    """Train a model on a task, in a run folder that afterwards holds all that is needed to go on or to use it.

    resume: go on from the last checkpoint of the folder, exactly as if the run had never stopped. Ctrl-C finishes the
    update at hand and saves a checkpoint. The model stays on the device. pretrained: its parameters are not those that
    its seed makes, so they are saved before the first step as well.

    Raises ConfigError for a training spec that is wrong, or a model that does not fit the task; CheckpointError if the
    folder cannot be written, holds another run, or holds checkpoints and `resume` was not asked for; DivergedError when
    the loss is no longer finite, with the checkpoints before that kept.
    """
    spec.check()
    model_spec = cast(Spec, model.spec)
    task.require(model_spec)
    place = pick_device(device)
    folder = Run(run)
    _open(folder, model_spec, spec, tokenizer, resume)
    was_training = model.training
    model.to(place).train()
    try:
        with private_chance(place):
            session = _Session(model, model_spec, task, spec, folder, place)
            outcome = session.run(console, save_first=pretrained and not resume)
    finally:
        model.train(was_training)
    plot_loss(folder.metrics, folder.plot)
    return outcome


def _open(folder: Run, model_spec: Spec, spec: TrainSpec, tokenizer: Tokenizer | None, resume: bool) -> None:
    if folder.checkpoints() and not resume:
        raise CheckpointError(f"{folder.root} holds a trained model already; resume its run, or name another folder")
    if resume and not folder.started:
        raise CheckpointError(f"{folder.root} holds no run to resume; name the folder of one, or start it anew")
    if resume:
        folder.require_continued(model_spec, spec)
        folder.sweep()
    else:
        folder.start(model_spec, spec, tokenizer)


class _Session:
    """One call of `train`: from a position of the run to its end, or to Ctrl-C."""

    def __init__(
        self, model: nn.Module, model_spec: Spec, task: Task, spec: TrainSpec, folder: Run, device: torch.device
    ) -> None:
        self._model, self._model_spec, self._task, self._spec = model, model_spec, task, spec
        self._folder, self._device = folder, device
        self._optimizer = spec.optimizer.build(model)
        self._position, carried = self._load()
        self._update = Updater(model, task, spec, self._optimizer, device, carried)

    def run(self, console: Console | None, save_first: bool) -> Outcome:
        rewind(self._folder.metrics, self._position.step)
        with (
            MetricsLog(self._folder.metrics) as self._log,
            Display(console, self._position.step, self._spec.steps) as self._display,
            Interrupt() as self._interrupt,
        ):
            self._recorder = Recorder(self._log, self._display, self._position)
            if save_first:
                self._save()
            held_out = self._steps()
            if self._interrupt.asked:
                self._save()
                self._display.say(
                    f"stopped after step {self._recorder.position.step} of {self._spec.steps}, and saved; "
                    f"resume the run in {self._folder.root} to go on"
                )
            return Outcome(self._recorder.position, not self._interrupt.asked, held_out)

    def _steps(self) -> dict[str, float]:
        """Go to the last step, or until Ctrl-C; gives the last evaluation. One that was due at a checkpoint is made
        after it is saved, and so again after resuming from there."""
        held_out = self._evaluate() if self._is_due(self._spec.evaluate_every) else {}
        while self._recorder.position.step < self._spec.steps and not self._interrupt.asked:
            self._recorder.add(self._update(self._recorder.position.step + 1))
            if self._is_due(self._spec.checkpoint_every):
                self._save()
            if self._is_due(self._spec.evaluate_every) and not self._interrupt.asked:
                held_out = self._evaluate()
        return held_out

    def _is_due(self, every: int) -> bool:
        step = self._recorder.position.step
        return step > 0 and (step % every == 0 or step == self._spec.steps)

    def _load(self) -> tuple[Position, tuple[Any, ...] | None]:
        """Where the run stands, and what its next step goes on from."""
        checkpoints = self._folder.checkpoints()
        if not checkpoints:
            return Position(), None
        latest = checkpoints[-1]
        position = load_checkpoint(latest, self._model, self._model_spec, self._optimizer, self._task.data)
        carried = load_carried(latest, self._device)
        goes_on = isinstance(self._task, StreamTask) and self._task.continues(position.step + 1)
        if goes_on and position.step and carried is None:
            raise CheckpointError(f"{latest} lacks the state that step {position.step + 1} goes on from; train anew")
        return position, carried

    def _save(self) -> None:
        self._recorder.pause()
        position = self._recorder.position
        path = self._folder.checkpoint(position.step)
        if not path.exists():
            data, carried = self._task.data, self._update.carried
            save_checkpoint(path, self._model, self._model_spec, self._optimizer, position, data, carried)
            self._folder.prune(self._spec.keep)
        self._recorder.resume()

    def _evaluate(self) -> dict[str, float]:
        self._recorder.pause()
        step = self._recorder.position.step
        found: dict[str, float] = {}
        self._model.eval()
        with self._interrupt.breaking(), torch.no_grad(), autocast(self._device, self._spec.precision):
            limit = None if step == self._spec.steps else self._spec.evaluate_tokens
            found = self._task.evaluate(self._model, limit, self._display.evaluating)
            self._log.write([{"kind": "held_out", "step": step, **found}])
            self._display.evaluation(step, found)
        self._model.train()
        self._recorder.resume()
        return found
