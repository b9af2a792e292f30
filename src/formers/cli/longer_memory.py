"""`--memory` and `--clamp`: a model with a memory is given a longer one than it was trained with."""

import argparse
from typing import Any

from formers.carried import with_memory
from formers.cli.parser import Parser
from formers.errors import ConfigError


def declare_memory(parser: Parser) -> None:
    """How much to remember, and from where on distances are one."""
    told = "tokens that a model with a memory keeps, in place of what it was trained with"
    parser.add_argument("--memory", type=int, metavar="TOKENS", help=told)
    told = "with --memory: distances beyond this count as this, where positions are Transformer-XL's"
    parser.add_argument("--clamp", type=int, metavar="DISTANCE", help=told)


def asked_memory(model: Any, options: argparse.Namespace) -> Any:
    """The model with the memory that was asked for, on its own parameters, or as it is. Raises ConfigError where it has
    none that could be changed."""
    if options.memory is None:
        if options.clamp is not None:
            raise ConfigError("--clamp goes with another memory: give --memory too, such as --memory 2048")
        return model
    return with_memory(model, options.memory, options.clamp)


def require_filled(options: argparse.Namespace, material: Any) -> None:
    """Raise ConfigError for a memory as long as the text that is to fill it."""
    if options.memory is not None and options.memory >= len(material.held_out):
        count = len(material.held_out)
        what = f"the text has {count:,} tokens, so a memory of {options.memory:,} would never be full"
        raise ConfigError(
            f"{what}: give a shorter one, such as --memory {max(1, count // 4)}, or a longer text by --data"
        )
