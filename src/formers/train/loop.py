"""The training loop: updates, checkpoints and evaluations, until the last step or Ctrl-C."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from torch import nn

from formers.data.tokenizer import Tokenizer
from formers.distributed.spec import Distribution
from formers.errors import CheckpointError
from formers.spec import Spec
from formers.train.checkpoint import Position, load_carried, load_checkpoint, save_checkpoint
from formers.train.device import AUTO, autocast, pick_device, private_chance
from formers.train.display import Display
from formers.train.interrupt import Interrupt
from formers.train.metrics import MetricsLog, rewind
from formers.train.plot import plot_loss
from formers.train.processes import OneProcess
from formers.train.recorder import Follower, Recorder
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
    distribution: Distribution = Distribution(),
) -> Outcome:
    """Train a model on a task, in a run folder that afterwards holds all that is needed to go on or to use it.

    resume: go on from the last checkpoint of the folder, exactly as if the run had never stopped. Ctrl-C finishes the
    update at hand and saves a checkpoint. The model stays on the device. pretrained: its parameters are not those that
    its seed makes, so they are saved before the first step as well.

    distribution: how the model is spread over processes, where this is one of several that have met
    (`formers.distributed.joined`). All of them call this alike, with models whose parameters become those of the first; it
    alone writes, and each model is left as its process held it: load the run to have it whole.

    Raises ConfigError for a training spec that is wrong, or a model that does not fit the task; CheckpointError if the
    folder cannot be written, holds another run, or holds checkpoints and `resume` was not asked for; DivergedError when
    the loss is no longer finite, with the checkpoints before that kept.
    """
    spec.check()
    model_spec = cast(Spec, model.spec)
    task.require(model_spec)
    folder = Run(run)
    was_training = model.training
    processes, place = _placed(model, spec, device, distribution)
    model.train()
    try:
        if processes.first:
            _open(folder, model_spec, spec, tokenizer, resume)
        processes.wait()
        with private_chance(place):
            session = _Session(model, model_spec, task, spec, folder, place, processes)
            outcome = session.run(console, save_first=pretrained and not resume)
    finally:
        model.train(was_training)
    if processes.first:
        plot_loss(folder.metrics, folder.plot)
    return outcome


def _placed(
    model: nn.Module, spec: TrainSpec, device: str, distribution: Distribution
) -> tuple[OneProcess, torch.device]:
    """Who trains, and where: the model is there afterwards, or this process's part of it."""
    if distribution == Distribution() and not torch.distributed.is_initialized():
        place = pick_device(device)
        model.to(place)
        return OneProcess(), place
    from formers.distributed.form import form  # an engine that most runs do without, and that is built on this package

    return form(model, spec, device, distribution)


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
        self,
        model: nn.Module,
        model_spec: Spec,
        task: Task,
        spec: TrainSpec,
        folder: Run,
        device: torch.device,
        processes: OneProcess,
    ) -> None:
        self._model, self._model_spec, self._task, self._spec = model, model_spec, task, spec
        self._folder, self._device, self._processes = folder, device, processes
        self._optimizer = spec.optimizer.build(model)
        self._position, carried = self._load()
        self._update = Updater(model, task, spec, self._optimizer, device, carried, processes)

    def run(self, console: Console | None, save_first: bool) -> Outcome:
        if not self._processes.first:
            with Interrupt() as self._interrupt:
                self._recorder = Follower(self._position)
                return self._outcome(save_first)
        rewind(self._folder.metrics, self._position.step)
        with (
            MetricsLog(self._folder.metrics) as log,
            Display(console, self._position.step, self._spec.steps) as display,
            Interrupt() as self._interrupt,
        ):
            self._recorder = Recorder(self._position, log, display)
            return self._outcome(save_first)

    def _outcome(self, save_first: bool) -> Outcome:
        """What came of all steps, or of those before Ctrl-C."""
        if save_first:
            self._save()
        held_out = self._steps()
        stopped = self._is_asked()
        if stopped:
            self._save()
            self._recorder.say(
                f"stopped after step {self._recorder.position.step} of {self._spec.steps}, and saved; "
                f"resume the run in {self._folder.root} to go on"
            )
        return Outcome(self._recorder.position, not stopped, held_out)

    def _steps(self) -> dict[str, float]:
        """Go to the last step, or until Ctrl-C; gives the last evaluation. One that was due at a checkpoint is made
        after it is saved, and so again after resuming from there."""
        held_out = self._evaluate() if self._is_due(self._spec.evaluate_every) else {}
        while self._recorder.position.step < self._spec.steps and not self._is_asked():
            self._recorder.add(self._update(self._recorder.position.step + 1))
            if self._is_due(self._spec.checkpoint_every):
                self._save()
            if self._is_due(self._spec.evaluate_every) and not self._is_asked():
                held_out = self._evaluate()
        return held_out

    def _is_asked(self) -> bool:
        """Whether Ctrl-C was pressed, in any process."""
        return self._processes.any(self._interrupt.asked)

    def _is_due(self, every: int) -> bool:
        step = self._recorder.position.step
        return step > 0 and (step % every == 0 or step == self._spec.steps)

    def _load(self) -> tuple[Position, tuple[Any, ...] | None]:
        """Where the run stands, and what its next step goes on from."""
        checkpoints = self._folder.checkpoints()
        if not checkpoints:
            return Position(), None
        latest = checkpoints[-1]
        position = load_checkpoint(
            latest, self._model, self._model_spec, self._optimizer, self._task.data, self._processes
        )
        carried = self._processes.own_state(load_carried(latest, self._device))
        goes_on = isinstance(self._task, StreamTask) and self._task.continues(position.step + 1)
        if goes_on and position.step and carried is None:
            raise CheckpointError(f"{latest} lacks the state that step {position.step + 1} goes on from; train anew")
        return position, carried

    def _save(self) -> None:
        self._recorder.pause()
        position = self._recorder.position
        path = self._folder.checkpoint(position.step)
        if self._processes.any(not path.exists()):
            data, carried = self._task.data, self._update.carried
            save_checkpoint(
                path, self._model, self._model_spec, self._optimizer, position, data, carried, self._processes
            )
            if self._processes.first:
                self._folder.prune(self._spec.keep)
        self._recorder.resume()

    def _evaluate(self) -> dict[str, float]:
        self._recorder.pause()
        step = self._recorder.position.step
        found: dict[str, float] = {}
        self._model.eval()
        with self._breaking(), torch.no_grad(), autocast(self._device, self._spec.precision):
            limit = None if step == self._spec.steps else self._spec.evaluate_tokens
            found = self._task.evaluate(self._model, limit, self._recorder.evaluating)
            self._recorder.evaluation(step, found)
        self._processes.after_evaluation(self._model)
        self._model.train()
        self._recorder.resume()
        return found

    def _breaking(self) -> AbstractContextManager[None]:
        """Ctrl-C breaks an evaluation off where nobody else is in the midst of the same one."""
        return self._interrupt.breaking() if self._processes.size == 1 else nullcontext()
