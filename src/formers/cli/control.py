"""`formers control`: record what policies do in an environment, train a model that acts, and let it act."""

import argparse
from pathlib import Path
from types import ModuleType

from formers.cli import control_agent, control_decision
from formers.cli.control_record import record
from formers.cli.parser import Parser, picture_file
from formers.cli.training import declare_training, given_training
from formers.control.run import read_note
from formers.errors import ConfigError
from formers.spec.codec import mean

# Who trains and acts, by member: modules with train(options) and act(options), each giving an exit code, and
# declare(group) for options of their own. A run says in its control.json which member it is of.
KINDS: dict[str, ModuleType] = {"decision_transformer": control_decision, "gtrxl": control_agent}
# What options are for, where that is not everything; those of training are for training, but for the seed.
ONLY = {
    "subject": ("train", "act"),
    "arguments": ("train",),
    "out": ("record", "train"),
    "policy": ("record",),
    "data": ("train",),
    "resume": ("train",),
    "hide": ("train", "act"),
    "returns": ("act",),
    "plot": ("act",),
}
EXAMPLES = """\
  formers control record --env CartPole-v1 --episodes 400 --out data/cartpole
  formers control train decision_transformer --env CartPole-v1 --data data/cartpole --steps 2000 --out runs/dt
  formers control train decision_transformer context=10 --env Pendulum-v1 --steps 2000 --out runs/pendulum
  formers control record --env Pendulum-v1 --policy runs/pendulum random --out data/pendulum
  formers control act runs/dt --return 500 --episodes 10
  formers control train gtrxl --env CartPole-v1 --hide 1 3 --steps 100000 --out runs/agent
"""


def declare(parser: Parser) -> None:
    """What to do, with which member or run."""
    parser.add_argument("action", choices=("record", "train", "act"), metavar="record|train|act", help="what to do")
    parser.add_argument("subject", nargs="?", metavar="MEMBER|RUN", help="train: a member; act: a run")
    parser.add_argument("arguments", nargs="*", metavar="NAME=VALUE", help="train: arguments of the member")
    parser.add_argument("--env", metavar="ID", help="a Gymnasium environment, such as CartPole-v1")
    parser.add_argument("--out", type=Path, metavar="DIR", help="record: the data set; train: the run")
    parser.add_argument("--episodes", type=int, metavar="N", help="how many to record, or to act")
    parser.add_argument("--plot", type=picture_file, metavar="FILE.png", help="act: draw what was reached")
    told = "record: random, scripted or a run, and worse ones of each (scripted, where a script is known)"
    parser.add_argument("--policy", nargs="+", metavar="NAME|RUN", help=told)
    declare_training(parser)
    for name, kind in KINDS.items():
        kind.declare(parser.add_argument_group(f"of {name}"))


def run(options: argparse.Namespace) -> int:
    """Do it; the exit code."""
    _require_fitting(options)
    if options.action == "record":
        return record(options)
    if options.subject is None:
        what = "a member: " + ", ".join(KINDS) if options.action == "train" else "the folder of a run"
        raise ConfigError(f"formers control {options.action} wants {what}")
    name = options.subject if options.action == "train" else read_note(Path(options.subject)).member
    if name not in KINDS:
        raise ConfigError(f"{name!r} is no member that learns to act: {mean(name, KINDS)}")
    return int(getattr(KINDS[name], options.action)(options))


def _require_fitting(options: argparse.Namespace) -> None:
    """Raise ConfigError for words that say nothing to what is asked."""
    odd = [name for name, actions in ONLY.items() if getattr(options, name) and options.action not in actions]
    if options.action != "train":
        odd += [name for name in given_training(options) if name != "seed"]
    if odd:
        option = "--return" if odd[0] == "returns" else "--" + odd[0].replace("_", "-")
        if odd[0] in ("subject", "arguments"):
            option = options.subject if odd[0] == "subject" else options.arguments[0]
        raise ConfigError(f"{option} says nothing to formers control {options.action}: leave it out")
