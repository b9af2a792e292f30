"""`formers control record`: what policies of mixed skill do in an environment, as a data set."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from formers.cli.progress import ticking
from formers.cli.terminal import Terminal
from formers.control.environment import Environment
from formers.control.trajectories import Policy, Random, Trajectories, mixed_skill, write_trajectories
from formers.control.trajectories import record as record_trajectories
from formers.control.trajectories.policies import SCRIPTS, scripted
from formers.errors import ConfigError

EPISODES = 400


def record(options: argparse.Namespace) -> int:
    """Record, and tell how well each policy did."""
    if options.env is None or options.out is None:
        raise ConfigError("what to record, and where to, is not said; give --env CartPole-v1 --out data/cartpole, say")
    episodes = EPISODES if options.episodes is None else options.episodes
    told = record_mixed(options.env, episodes, seed_of(options), options.policy)
    write_trajectories(options.out, told)
    _tell(told)
    print(f"{len(told):,} episodes, {len(told.rewards):,} steps, are in {options.out}")
    return 0


def record_mixed(name: str, episodes: int, seed: int, actors: Sequence[str] | None = None) -> Trajectories:
    """Episodes of some policies and of worse ones. actors: random, scripted, or runs; None: what is known."""
    environment = Environment(name)
    try:
        policies: list[Policy] = []
        for actor in actors or ["scripted" if name in SCRIPTS else "random"]:
            policies += _policies(actor, environment)
        with ticking(f"recording {name}") as tick:
            return record_trajectories(environment, policies, episodes, seed=seed, tick=tick)
    finally:
        environment.close()


def _policies(actor: str, environment: Environment) -> list[Policy]:
    """A policy, and the same with more and more of its actions drawn at random."""
    if actor == "random":
        return [Random(environment.action)]
    if actor == "scripted":
        return mixed_skill(scripted(environment.name, environment.action), environment.action)
    from formers.control.trajectories.trained import trained_policy

    return mixed_skill(trained_policy(Path(actor), environment.name), environment.action)


def seed_of(options: argparse.Namespace) -> int:
    """The seed that was given, or 0."""
    return int(getattr(options, "seed", 0))


def _tell(told: Trajectories) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("policy")
    for heading in ("episodes", "mean return", "lowest", "highest"):
        table.add_column(heading, justify="right")
    for number, name in enumerate(told.policies):
        returns = told.returns[told.policy == number]
        if len(returns):
            found = (float(figure) for figure in (returns.mean(), returns.min(), returns.max()))
            table.add_row(name, str(len(returns)), *(f"{figure:,.1f}" for figure in found))
    Terminal().print(table)
