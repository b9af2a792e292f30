"""The register of members: it feeds the tests, the command line, the docs and the benchmarks."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from formers.errors import ConfigError
from formers.spec.codec import mean
from formers.spec.core import Spec


@dataclass(frozen=True)
class Member:
    """A named model and the paper that it comes from.

    cost: operations of attention as the length n grows. small: arguments that make it small enough to test.
    """

    name: str
    make: Callable[..., Any]
    title: str
    paper: str
    year: int
    cost: str
    small: Mapping[str, Any]

    @property
    def arguments(self) -> dict[str, Any]:
        """The names and defaults of what can be chosen."""
        return {name: parameter.default for name, parameter in inspect.signature(self.make).parameters.items()}


MEMBERS: dict[str, Member] = {}


def member(
    title: str, *, paper: str, year: int, cost: str, small: Mapping[str, Any]
) -> Callable[[Callable[..., Spec]], Callable[..., Spec]]:
    """Enter a function that returns a spec into the register, under its own name."""

    def enter(function: Callable[..., Spec]) -> Callable[..., Spec]:
        name = function.__name__
        MEMBERS[name] = Member(name, function, title, paper, year, cost, dict(small))
        return function

    return enter


def make(name: str, **arguments: Any) -> Any:
    """The spec of a member, with some arguments chosen. Raises ConfigError on unknown names."""
    if name not in MEMBERS:
        raise ConfigError(f"there is no member named {name!r}: {mean(name, MEMBERS)}")
    known = MEMBERS[name].arguments
    for argument in arguments:
        if argument not in known:
            raise ConfigError(f"{name} has no argument {argument!r}: {mean(argument, known)}")
    return MEMBERS[name].make(**arguments)
