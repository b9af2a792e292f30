"""Find everything that is wrong with a spec at once, each with its path and its mend."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from formers.errors import ConfigError
from formers.spec.core import Problem, Site, Spec, fields_of
from formers.spec.fields import describe, fits, hints


def find_problems(value: Any, site: Site, path: str) -> Iterator[Problem]:
    """Every problem of a spec and of the specs within it."""
    if isinstance(value, Spec):
        mistyped = list(_mistyped(value, path))
        if mistyped:
            yield from mistyped
            return
        yield from (Problem(path, what, fix) for what, fix in value.problems(site))
        inner = value.inside(site)
        for name, item in fields_of(value):
            yield from find_problems(item, inner, f"{path}.{name}")
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from find_problems(item, site, f"{path}[{i}]")


def _mistyped(spec: Spec, path: str) -> Iterator[Problem]:
    declared = hints(type(spec))
    for name, value in fields_of(spec):
        if not fits(value, declared[name]):
            yield Problem(f"{path}.{name}", f"{value!r} is a {type(value).__name__}, not {describe(declared[name])}")


def check(spec: Spec, site: Site, name: str) -> None:
    """Raise one ConfigError that lists all problems, or return."""
    refuse(name, find_problems(spec, site, name))


def refuse(name: str, problems: Iterable[Problem]) -> None:
    """Raise a ConfigError if there is any problem; equal problems of repeated blocks are told once."""
    told: dict[tuple[str, str, str], list[Problem]] = {}
    for problem in problems:
        place = re.sub(r"\[\d+\]", "[*]", problem.path)
        told.setdefault((place, problem.what, problem.fix), []).append(problem)
    if not told:
        return
    lines = []
    for i, alike in enumerate(told.values(), 1):
        first = alike[0]
        path = first.path if len(alike) == 1 else f"{first.path} and {len(alike) - 1} more like it"
        lines.append(f"  {i}. {Problem(path, first.what, first.fix)}")
    count = f"{len(told)} problem{'s' * (len(told) > 1)}"
    raise ConfigError(f"{name} cannot be built: {count}\n" + "\n".join(lines))
