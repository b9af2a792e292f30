"""`formers control train decision_transformer`, and acting by such a run."""

import argparse
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from formers.cli.control_record import EPISODES, record_mixed, seed_of
from formers.cli.model import member_spec, read_spec, require_buildable
from formers.cli.progress import ticking
from formers.cli.terminal import Terminal
from formers.cli.training import changed, given_training, require_steps
from formers.control.decision.asked import Reached, act_for, plot_reached
from formers.control.decision.task import Decisions, standardise
from formers.control.environment import Environment
from formers.control.run import Note, read_note, write_note
from formers.control.trajectories import Trajectories, open_trajectories, write_trajectories
from formers.control.trajectories.minari import from_minari
from formers.control.trajectories.record import LONGEST
from formers.data.atomic import write_json
from formers.errors import CheckpointError, ConfigError
from formers.model import parameter_count
from formers.train import AdamW, CosineDecay, Run, TrainSpec, load_model
from formers.train import train as train_model

INTERRUPTED = 130
NAME, MINARI = "decision_transformer", "minari:"
GOALS, EACH, ACTS = (
    6,
    10,
    10,
)  # returns that are asked for after training, episodes for each, and when one return is asked


def declare(group: Any) -> None:
    """What it learns from, and what it is asked for."""
    told = "train: recorded trajectories, or minari:NAME (recorded now, of a scripted policy and of worse ones)"
    group.add_argument("--data", metavar="DIR", help=told)
    told = "act: returns to ask for, each for some episodes (the highest that was learned from)"
    group.add_argument("--return", nargs="+", type=float, metavar="R", dest="returns", help=told)
    told = "act: of the distribution that choices are drawn from; 0 takes the likeliest (1)"
    group.add_argument("--temperature", type=float, default=1.0, metavar="T", help=told)
    group.add_argument("--resume", action="store_true", help="train: go on from the run's last checkpoint")


def train(options: argparse.Namespace) -> int:
    """Train on trajectories, then act for returns over all that was learned from; 130 if Ctrl-C stopped it."""
    if options.out is None:
        raise ConfigError("where the run is to lie is not said; give --out runs/dt, say")
    folder = Run(options.out)
    if options.resume and not folder.started:
        raise CheckpointError(f"{options.out} holds no run to resume; leave --resume out to begin one")
    if folder.started and not options.resume:
        raise CheckpointError(
            f"{options.out} holds a run already; add --resume to go on with it, or name another --out"
        )
    environment, told, spec, training = _resumed(options, folder) if options.resume else _begun(options)
    torch.manual_seed(training.seed)
    model = spec.build()
    standardise(model, told)
    print(f"{spec.name}: {parameter_count(model):,} parameters; {len(told.rewards):,} steps of {len(told):,} episodes")
    outcome = train_model(model, Decisions(told, training), training, options.out, resume=options.resume)
    if not outcome.finished:
        return INTERRUPTED
    _try_out(options, model, environment, told)
    print(f"the run is in {options.out}; what it was asked for and reached, in {options.out / 'reached.png'}")
    return 0


def act(options: argparse.Namespace) -> int:
    """Act for the returns that are asked for, and tell what was reached."""
    run = Path(options.subject)
    note = read_note(run)
    if options.temperature < 0:
        raise ConfigError(f"a temperature of {options.temperature} is none; give 0, or more to act less surely")
    asked = options.returns or [note.more["highest"]]
    episodes = ACTS if options.episodes is None else options.episodes
    found = _acted(load_model(run), options.env or note.environment, sorted(asked), episodes, options)
    if options.plot is not None:
        plot_reached(found, options.plot, f"{note.environment}, {run.name}")
        print(f"drawn in {options.plot}")
    return 0


def _begun(options: argparse.Namespace) -> tuple[str, Trajectories, Any, TrainSpec]:
    """The environment, what to learn from, put into the run's folder, and what the options say of model and training."""
    given = given_training(options)
    require_steps(given)
    told, name = _material(options)
    environment = Environment(name)
    environment.close()
    highest = float(told.returns.abs().max())
    fitting = {
        "observation": told.observation,
        "action": told.action,
        "horizon": max(int(told.lengths.max()), environment.limit or LONGEST),
        "return_scale": highest or 1.0,
    }
    spec = member_spec(NAME, options.arguments, fitting)
    require_buildable(spec)
    usual = TrainSpec(
        given["steps"],
        batch=64,
        length=spec.context,
        optimizer=AdamW(weight_decay=1e-4),
        schedule=CosineDecay(warm_up=min(100, given["steps"])),
    )
    training = changed(usual, given)
    Decisions(told, training).require(spec)
    told = write_trajectories(options.out / "data", told)
    returns = {"lowest": float(told.returns.min()), "highest": float(told.returns.max())}
    write_note(options.out, Note(NAME, name, returns))
    return name, told, spec, training


def _resumed(options: argparse.Namespace, folder: Run) -> tuple[str, Trajectories, Any, TrainSpec]:
    """The same of a run that goes on."""
    training = changed(read_spec(str(options.out / "train.json")), given_training(options))
    return read_note(options.out).environment, open_trajectories(options.out / "data"), folder.spec, training


def _material(options: argparse.Namespace) -> tuple[Trajectories, str]:
    """What to learn from, and in which environment it was seen."""
    if options.data is None and options.env is None:
        raise ConfigError(
            "there is nothing to learn from; give --env CartPole-v1, or --data DIR of recorded trajectories"
        )
    if options.data is None:
        episodes = EPISODES if options.episodes is None else options.episodes
        return record_mixed(options.env, episodes, seed_of(options)), options.env
    if options.data.startswith(MINARI):
        told = from_minari(options.data.removeprefix(MINARI))
    else:
        told = open_trajectories(Path(options.data))
    if options.env is None and told.environment is None:
        raise ConfigError(f"{options.data} does not say in which environment it was recorded; give --env")
    if None not in (options.env, told.environment) and options.env != told.environment:
        raise ConfigError(f"the trajectories of {options.data} were recorded in {told.environment}: leave out --env")
    return told, options.env or str(told.environment)


def _try_out(options: argparse.Namespace, model: Any, environment: str, told: Trajectories) -> None:
    """Ask for returns from the lowest to the highest that was learned from, and draw what is reached."""
    lowest, highest = float(told.returns.min()), float(told.returns.max())
    asked = [lowest + (highest - lowest) * i / (GOALS - 1) for i in range(GOALS)] if highest > lowest else [highest]
    found = _acted(model.eval(), environment, asked, EACH, options)
    plot_reached(found, options.out / "reached.png", f"{environment}, {NAME}", told.returns.tolist())
    write_json(options.out / "reached.json", {"reached": [{"asked": r.asked, "reached": r.reached} for r in found]})


def _acted(
    model: Any, environment: str, asked: list[float], episodes: int, options: argparse.Namespace
) -> list[Reached]:
    with ticking(f"acting in {environment}") as tick:
        found = act_for(
            model, environment, asked, episodes, temperature=options.temperature, seed=seed_of(options), tick=tick
        )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("asked return", "reached, mean", "lowest", "highest", "episodes"):
        table.add_column(heading, justify="right")
    for each in found:
        figures = (each.asked, each.mean, min(each.reached), max(each.reached))
        table.add_row(*(f"{figure:,.1f}" for figure in figures), str(len(each.reached)))
    Terminal().print(table)
    return found
