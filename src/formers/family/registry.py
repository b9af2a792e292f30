"""The register of members: it feeds the tests, the command line, the docs and the benchmarks."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from formers.errors import ConfigError
from formers.spec.codec import mean
from formers.spec.core import Spec


@dataclass(frozen=True)
class Member:
    """A named model and the paper that it comes from.

    cost: operations of attention as the length n grows. small: arguments that make it small enough to test. presets: by
    name, arguments that make it one of the sizes that it is known in.
    """

    name: str
    make: Callable[..., Any]
    title: str
    paper: str
    year: int
    cost: str
    small: Mapping[str, Any]
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, Any]:
        """The names and defaults of what can be chosen."""
        return {name: parameter.default for name, parameter in inspect.signature(self.make).parameters.items()}


MEMBERS: dict[str, Member] = {}
# Members that read no tokens: returns, observations and actions. They have laws of their own.
ACTORS: dict[str, Member] = {}


def member(
    title: str,
    *,
    paper: str,
    year: int,
    cost: str,
    small: Mapping[str, Any],
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    register: dict[str, Member] = MEMBERS,
) -> Callable[[Callable[..., Spec]], Callable[..., Spec]]:
    """Enter a function that returns a spec into a register, under its own name."""

    def enter(function: Callable[..., Spec]) -> Callable[..., Spec]:
        name = function.__name__
        register[name] = Member(name, function, title, paper, year, cost, dict(small), dict(presets or {}))
        return function

    return enter


def find_member(name: str) -> Member:
    """The member of that name, whatever it reads. Raises ConfigError where there is none."""
    every = MEMBERS | ACTORS
    if name not in every:
        raise ConfigError(f"there is no member named {name!r}: {mean(name, every)}")
    return every[name]


def preset_of(name: str, preset: str | None) -> Mapping[str, Any]:
    """The arguments that a preset of a member stands for; None: none. Raises ConfigError where it has no such preset."""
    known = find_member(name).presets
    if preset is None:
        return {}
    if not known:
        raise ConfigError(f"{name} has no presets; give its arguments")
    if preset not in known:
        raise ConfigError(f"{name} has no preset {preset!r}: {mean(preset, known)}")
    return known[preset]


def make(name: str, preset: str | None = None, /, **arguments: Any) -> Any:
    """The spec of a member, with some arguments chosen, over those of a preset. Raises ConfigError on unknown names."""
    chosen = find_member(name)
    known = chosen.arguments
    for argument in arguments:
        if argument not in known:
            raise ConfigError(f"{name} has no argument {argument!r}: {mean(argument, known)}")
    return chosen.make(**{**preset_of(name, preset), **arguments})
