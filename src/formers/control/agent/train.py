"""A run folder of an agent: training that can be stopped and resumed, its diary, and the picture of its returns."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from formers.control.agent.model import Agent, AgentLayer
from formers.control.agent.ppo import PPO, Learned, Learner
from formers.control.agent.rollout import Finished, Rollouts
from formers.control.environment import Environment
from formers.data.atomic import replacing
from formers.errors import CheckpointError
from formers.spec import diff, from_json, to_json
from formers.train.checkpoint import Position, load_checkpoint, save_checkpoint
from formers.train.interrupt import Interrupt
from formers.train.metrics import MetricsLog, Row, read_metrics
from formers.train.recorder import DivergedError
from formers.train.run import Run

TOGETHER = 20  # episodes
FREE = {"keep"}  # what may change where a run goes on
Tell = Callable[[int, float | None], object]


class Outcome(NamedTuple):
    """The trained agent, and whether it came to the end; False: it was stopped, and can be resumed."""

    model: AgentLayer
    finished: bool


def train_agent(
    spec: Agent, ppo: PPO, make: Callable[[], Environment], folder: Path, *, resume: bool = False, tell: Tell
) -> Outcome:
    """Train an agent in environments that `make` makes, in a run folder: spec.json, train.json, metrics.jsonl, returns.png
    and checkpoints. Ctrl-C stops after the present update; what came after the last checkpoint is then done again.

    tell: is told the number of steps that are done, and the mean return of the episodes that ended last, if any.
    Raises CheckpointError where the folder holds another run, or none to resume, and DivergedError where a loss is no number.
    """
    run = Run(folder)
    _open(run, spec, ppo, resume=resume)
    torch.manual_seed(ppo.seed)
    model = spec.build()
    environments = [make() for _ in range(ppo.environments)]
    try:
        learner = Learner(model, Rollouts(model, environments), ppo)
        done = _position(run, learner)
        with MetricsLog(run.metrics) as log, Interrupt() as interrupt:
            finished = _run(run, learner, done, log, interrupt, tell)
    finally:
        for environment in environments:
            environment.close()
    plot_returns([run.metrics], [spec.name], folder / "returns.png")
    return Outcome(model.eval(), finished)


def _open(run: Run, spec: Agent, ppo: PPO, *, resume: bool) -> None:
    ppo.check()
    train = run.root / "train.json"
    if resume != train.is_file():
        holds, mend = ("no run to resume", "leave --resume out to begin one")
        if train.is_file():
            holds, mend = "a run already", "add --resume to go on with it, or name another --out"
        raise CheckpointError(f"{run.root} holds {holds}; {mend}")
    if resume:
        old = from_json(train.read_text(encoding="utf-8"), str(train))
        told = [*diff(run.spec, spec), *(one for one in diff(old, ppo) if one[0] not in FREE)]
        if told:
            changes = "; ".join(f"{path}: {was!r} was saved, {now!r} is given" for path, was, now in told)
            raise CheckpointError(f"{run.root} is another run: {changes}")
        run.sweep()
        return
    (run.root / "checkpoints").mkdir(parents=True, exist_ok=True)
    for path, text in ((run.root / "spec.json", to_json(spec)), (train, to_json(ppo))):
        with replacing(path) as (stream,):
            stream.write(text.encode())


def _position(run: Run, learner: Learner) -> Position:
    """Bring the learner to where the last checkpoint left it, and the diary with it."""
    found = run.checkpoints()
    done = Position()
    if found:
        done = load_checkpoint(found[-1], learner.model, learner.model.spec, learner.optimizer, {})
    if run.metrics.is_file():  # what was done after the checkpoint is done again
        rows = [row for row in read_metrics(run.metrics) if row["step"] <= done.step]
        run.metrics.unlink()
        with MetricsLog(run.metrics) as log:
            log.write(rows)
    return done


def _run(run: Run, learner: Learner, done: Position, log: MetricsLog, interrupt: Interrupt, tell: Tell) -> bool:
    """Updates until the last one, or until somebody interrupts."""
    ppo, finished = learner.spec, learner.rollouts.finished
    began = time.perf_counter() - done.seconds
    for number in range(done.step, ppo.updates):
        learned = learner.update(number)
        steps = (number + 1) * ppo.environments * ppo.length
        now = Position(number + 1, steps, time.perf_counter() - began)
        row = _row(now, learned, finished)
        finished.clear()
        log.write([row])
        if learned.loss != learned.loss:
            raise DivergedError(f"the loss is no number any more at update {number + 1}: lower --learning-rate")
        tell(steps, row.get("return"))
        if now.step % ppo.checkpoint_every == 0 or now.step == ppo.updates:
            save_checkpoint(run.checkpoint(now.step), learner.model, learner.model.spec, learner.optimizer, now)
            run.prune(ppo.keep)
        if interrupt.asked:
            return now.step == ppo.updates
    return True


def _row(at: Position, learned: Learned, finished: Sequence[Finished]) -> Row:
    row: Row = {"kind": "train", "step": at.step, "steps": at.tokens, "seconds": round(at.seconds, 3)}
    if finished:
        row |= {"return": sum(one.returned for one in finished) / len(finished), "episodes": len(finished)}
    return row | {name: round(number, 6) for name, number in learned._asdict().items()}


def plot_returns(diaries: Sequence[Path], names: Sequence[str], picture: Path) -> None:
    """Draw the mean return of the last episodes over the steps, of one run or several. Raises DataError if the picture cannot
    be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for diary, name in zip(diaries, names, strict=True):
        rows = [row for row in read_metrics(diary) if "return" in row]
        axes.plot([row["steps"] for row in rows], smoothed(rows), linewidth=1, label=name)
    axes.set_xlabel("steps in the environment")
    axes.set_ylabel(f"mean return of the last {TOGETHER} episodes")
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(picture) as (stream,):
        figure.savefig(stream, format="png", dpi=120)


def smoothed(rows: Sequence[Row]) -> list[float]:
    """Of each row of a diary, the mean return of about the last `TOGETHER` episodes: few end at once when they are long."""
    found = []
    for at in range(len(rows)):
        total, episodes = 0.0, 0
        for row in reversed(rows[: at + 1]):
            total, episodes = total + row["return"] * row["episodes"], episodes + row["episodes"]
            if episodes >= TOGETHER:
                break
        found.append(total / episodes)
    return found
