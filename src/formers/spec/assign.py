"""Set any field of a spec by its path: `blocks[*].sublayers[0].heads=16`."""

import re
from typing import Any

from formers.errors import ConfigError
from formers.spec.codec import mean
from formers.spec.core import Spec
from formers.spec.expression import parse
from formers.spec.fields import describe, fits, hints

STEP = re.compile(r"\.?([A-Za-z_]\w*)|\[(\*|-?\d+)\]")


def assign(spec: Any, assignment: str) -> Any:
    """A copy of `spec` with the assignment `path=value` made; `[*]` stands for every item. Raises ConfigError."""
    path, equals, text = assignment.partition("=")
    if not equals:
        raise ConfigError(f"{assignment!r} sets nothing: write path=value, such as blocks[*].sublayers[0].heads=16")
    return _set(spec, _steps(path.strip()), parse(text), "")


def _steps(path: str) -> list[str]:
    steps, at = [], 0
    while at < len(path):
        match = STEP.match(path, at)
        if not match:
            raise ConfigError(f"{path!r} is not a path: it breaks at {path[at:]!r}")
        steps.append(match.group(1) or f"[{match.group(2)}]")
        at = match.end()
    if not steps:
        raise ConfigError("an empty path sets nothing")
    return steps


def _set(value: Any, steps: list[str], new: Any, path: str) -> Any:
    if not steps:
        return new
    step, rest = steps[0], steps[1:]
    if step.startswith("["):
        return _set_item(value, step[1:-1], rest, new, path)
    if not isinstance(value, Spec):
        raise ConfigError(f"{path or 'the value'} is {value!r}, which has no fields")
    declared = hints(type(value))
    if step not in declared:
        raise ConfigError(f"{path or type(value).__name__} has no field {step!r}; {mean(step, declared)}")
    changed = _set(getattr(value, step), rest, new, f"{path}.{step}".lstrip("."))
    if (
        not rest
        and isinstance(changed, int)
        and not fits(changed, declared[step])
        and fits(str(changed), declared[step])
    ):
        changed = str(changed)
    if not fits(changed, declared[step]):
        raise ConfigError(f"{path}.{step}".lstrip(".") + f": {changed!r} is not {describe(declared[step])}")
    return value.replace(**{step: changed})


def _set_item(value: Any, index: str, rest: list[str], new: Any, path: str) -> Any:
    if not isinstance(value, tuple):
        raise ConfigError(f"{path} is {value!r}, which has no items")
    if index == "*":
        return tuple(_set(item, rest, new, f"{path}[{i}]") for i, item in enumerate(value))
    place = int(index)
    if not -len(value) <= place < len(value):
        raise ConfigError(f"{path}[{place}]: there are {len(value)} items, counted from 0")
    place %= len(value)
    changed = _set(value[place], rest, new, f"{path}[{place}]")
    return (*value[:place], changed, *value[place + 1 :])
