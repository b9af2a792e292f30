"""`formers control train gtrxl`: an agent with a memory learns in an environment; and acting by such a run."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from formers.cli.model import read_spec, spec_of
from formers.cli.progress import ticking
from formers.cli.terminal import Terminal
from formers.cli.training import given_training, require_steps
from formers.control.agent import PPO, Agent, Finished, gtrxl_agent, require_fit, train_agent
from formers.control.agent import act as act_in
from formers.control.agent.train import Tell
from formers.control.environment import Environment
from formers.control.run import Note, read_note, write_note
from formers.errors import CheckpointError, ConfigError
from formers.family.registry import Member
from formers.model import on_meta, parameter_count
from formers.train.run import Run, load_model

NAME, INTERRUPTED, EPISODES, LINES = "gtrxl", 130, 10, 10
AGENT = Member(NAME, gtrxl_agent, "GTrXL", "arXiv:1910.06764", 2019, "n (segment + memory)", {})
# What options of training are called in PPO; the learning rate is the optimiser's.
FIELDS = {
    "steps": "steps",
    "batch": "environments",
    "length": "length",
    "clip": "norm",
    "seed": "seed",
    "checkpoint_every": "checkpoint_every",
    "keep": "keep",
}


def declare(group: Any) -> None:
    """What it does not see."""
    told = "numbers of what is observed that are left out, counted from 0, such as velocities (act: those of training)"
    group.add_argument("--hide", nargs="+", type=int, metavar="N", help=told)


def train(options: argparse.Namespace) -> int:
    """Train in an environment, then act there; 130 if Ctrl-C stopped it.

    --steps counts the steps of all environments together, --batch environments, --length steps between updates.
    """
    if options.out is None:
        raise ConfigError("where the run is to lie is not said; give --out runs/agent, say")
    _refuse_others(options)
    note, spec, ppo = _resumed(options) if options.resume else _begun(options)
    print(f"{spec.name}: {parameter_count(on_meta(spec)):,} parameters; {note.environment}, {_told(note)}")
    hide = note.more["hide"]
    with _telling(ppo.steps) as tell:
        outcome = train_agent(
            spec, ppo, lambda: Environment(note.environment, hide), options.out, resume=options.resume, tell=tell
        )
    if not outcome.finished:
        print(f"stopped; formers control train {NAME} --resume --out {options.out} goes on from the last checkpoint")
        return INTERRUPTED
    _act(outcome.model, Environment(note.environment, hide), EPISODES, ppo.seed)
    print(f"the run is in {options.out}; returns over steps, in {options.out / 'returns.png'}")
    return 0


def act(options: argparse.Namespace) -> int:
    """Let a trained agent act, and tell what it earned."""
    run = Path(options.subject)
    note = read_note(run)
    hide = note.more.get("hide", []) if options.hide is None else options.hide
    environment = Environment(options.env or note.environment, hide)
    model: Any = load_model(run)
    episodes = EPISODES if options.episodes is None else options.episodes
    _act(model, environment, episodes, int(getattr(options, "seed", 0)))
    return 0


def _begun(options: argparse.Namespace) -> tuple[Note, Agent, PPO]:
    """A new run: what it is in and of, by the options, and its note in its folder."""
    given = given_training(options)
    require_steps(given)
    if options.env is None:
        raise ConfigError("where it is to act is not said; give --env CartPole-v1, say")
    if Run(options.out).started:
        raise CheckpointError(
            f"{options.out} holds a run already; add --resume to go on with it, or name another --out"
        )
    hide = sorted(set(options.hide or ()))
    environment = Environment(options.env, hide)
    environment.close()
    spaces = {"observation": environment.observation, "action": environment.action}
    spec = spec_of(AGENT, options.arguments, spaces)
    require_fit(spec, environment)
    on_meta(spec)  # says what is wrong, before anything is written
    ppo = PPO(**{FIELDS[name]: value for name, value in given.items() if name in FIELDS})
    if "learning_rate" in given:
        ppo = ppo.replace(optimizer=ppo.optimizer.replace(learning_rate=given["learning_rate"]))
    ppo = ppo.replace(pieces=min(ppo.pieces, max(1, ppo.environments)))
    ppo.check()
    note = Note(NAME, options.env, {"hide": hide})
    write_note(options.out, note)
    return note, spec, ppo


def _resumed(options: argparse.Namespace) -> tuple[Note, Agent, PPO]:
    """A run that goes on, as it was begun."""
    folder = Run(options.out)
    if not folder.started:
        raise CheckpointError(f"{options.out} holds no run to resume; leave --resume out to begin one")
    if given_training(options) or options.arguments or options.env is not None or options.hide is not None:
        raise ConfigError("a run goes on as it was begun; give --resume and --out alone")
    spec: Any = folder.spec
    return read_note(options.out), spec, read_spec(str(options.out / "train.json"))


def _refuse_others(options: argparse.Namespace) -> None:
    """Raise ConfigError for options that say nothing to this kind of training."""
    odd = [name for name in given_training(options) if name not in FIELDS and name != "learning_rate"]
    odd += [name for name in ("data", "returns", "plot") if getattr(options, name, None) is not None]
    if odd:
        option = "--" + ("return" if odd[0] == "returns" else odd[0].replace("_", "-"))
        raise ConfigError(f"{option} is not for {NAME}, which learns in its environment by PPO: leave it out")


def _told(note: Note) -> str:
    hide = note.more["hide"]
    return f"observations {', '.join(map(str, hide))} hidden" if hide else "nothing hidden"


def _act(model: Any, environment: Environment, episodes: int, seed: int) -> None:
    try:
        with ticking(f"acting in {environment.name}") as tick:
            found = act_in(model, environment, episodes, seed=seed, tick=tick)
    finally:
        environment.close()
    Terminal().print(_table(found))


def _table(found: Sequence[Finished]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("episodes", "mean return", "lowest", "highest", "mean steps"):
        table.add_column(heading, justify="right")
    returned = [one.returned for one in found]
    steps = sum(one.steps for one in found) / len(found)
    figures = (sum(returned) / len(found), min(returned), max(returned), steps)
    table.add_row(str(len(found)), *(f"{figure:,.1f}" for figure in figures))
    return table


@contextmanager
def _telling(total: int) -> Iterator[Tell]:
    """A bar while the block runs, and a line that stays for every tenth of the steps; both on standard error."""
    console = Console(stderr=True)
    columns = (TextColumn("training"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[told]}"))
    bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)
    with bar:
        task, lines, last = bar.add_task("training", total=total, told=""), 0, 0.0

        def tell(steps: int, returned: float | None) -> None:
            nonlocal lines, last
            last = last if returned is None else returned
            bar.update(task, completed=min(steps, total), told=f"return {last:,.1f}")
            if steps * LINES // total > lines:
                lines = steps * LINES // total
                bar.console.print(f"{steps:,} steps: mean return {last:,.1f}", highlight=False)

        yield tell
