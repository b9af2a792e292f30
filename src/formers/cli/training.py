"""A training spec out of options: one option for each of its fields, typed as the field is."""

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

from formers.cli.parser import Parser
from formers.errors import ConfigError
from formers.spec import parse
from formers.spec.fields import describe, fits, hints
from formers.train import TrainSpec

HELP = {
    "steps": "updates of the parameters",
    "batch": "rows per update",
    "length": "tokens per row",
    "accumulation": "pieces that a batch is computed in, to save memory",
    "optimizer": "such as 'AdamW(learning_rate=3e-4, weight_decay=0.1)', 'AdamW8bit()' or 'Adafactor()'",
    "schedule": "such as 'CosineDecay(warm_up=100)', 'InverseSquareRoot(warm_up=4000)' or 'Constant()'",
    "clip": "largest norm of the gradient, or none",
    "label_smoothing": "share of probability spread over the vocabulary",
    "loss_chunk": "targets whose logits exist at a time, or none for all",
    "auxiliary": "weight of losses that the model adds by itself",
    "precision": "fp32, or bf16 for products in bfloat16",
    "compile": "run the model through torch.compile",
    "seed": "of the first parameters, the order of the data, and dropout",
    "evaluate_every": "steps between evaluations",
    "evaluate_tokens": "how much of the held-out data evaluations before the last read, or none for all",
    "checkpoint_every": "steps between checkpoints",
    "keep": "checkpoints that stay on the disk",
}
DEFAULTS: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(TrainSpec)}
# Fields further down that are wanted often enough to have an option: option -> (field of the training spec, its field).
DEEPER = {"learning_rate": ("optimizer", "learning_rate"), "warm_up": ("schedule", "warm_up")}


def declare_training(parser: Parser) -> None:
    """An option for each field; those that are not given are not in the namespace."""
    group = parser.add_argument_group("training")
    for name, hint in hints(TrainSpec).items():
        _declare(group, name, hint, HELP[name])
    _declare(group, "learning_rate", float, "of the optimizer, at its peak")
    _declare(group, "warm_up", int, "steps over which the learning rate rises")


def given_training(options: argparse.Namespace) -> dict[str, Any]:
    """The fields, and those further down, that options were given for."""
    return {name: value for name, value in vars(options).items() if name in HELP or name in DEEPER}


def changed(spec: TrainSpec, given: dict[str, Any]) -> TrainSpec:
    """The training spec with the given fields in place of its own, checked. Raises ConfigError."""
    spec = spec.replace(**{name: value for name, value in given.items() if name in HELP})
    for name, (part, field) in DEEPER.items():
        if name in given:
            spec = spec.replace(**{part: getattr(spec, part).replace(**{field: given[name]})})
    spec.check()
    return spec


def new_training(given: dict[str, Any], longest: int | None) -> TrainSpec:
    """A training spec from the given fields. longest: rows that the model can read, which bounds the default length."""
    require_steps(given)
    length = DEFAULTS["length"]
    spec = changed(TrainSpec(given["steps"], length=min(length, longest or length)), given)
    require_length(spec, longest)
    return spec


def require_steps(given: dict[str, Any]) -> None:
    """Raise ConfigError unless it is said how long to train."""
    if "steps" not in given:
        raise ConfigError("how long to train is not said; give --steps 2000, say")


def require_length(spec: TrainSpec, longest: int | None) -> None:
    """Raise ConfigError if rows are longer than what the model can read; longest: None where it can read any."""
    if longest is not None and spec.length > longest:
        raise ConfigError(
            f"rows of {spec.length} tokens do not fit a model of {longest} positions; give --length {longest}"
        )


def _declare(group: Any, name: str, hint: Any, told: str) -> None:
    option = "--" + name.replace("_", "-")
    if hint is bool:
        group.add_argument(option, action="store_true", default=argparse.SUPPRESS, help=told)
        return
    default = DEFAULTS.get(name, dataclasses.MISSING)
    usual = "" if default is dataclasses.MISSING else f" ({default!r})"
    word = "SPEC" if dataclasses.is_dataclass(default) else "X" if hint is float else "N"
    group.add_argument(option, type=_reader(hint), default=argparse.SUPPRESS, metavar=word, help=told + usual)


def _reader(hint: Any) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            value = parse(text)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        if not fits(value, hint):
            raise argparse.ArgumentTypeError(f"{value!r} is not {describe(hint)}")
        return value

    return read
