"""Specs to JSON and back; whatever is wrong in a file is told all at once, with paths."""

import dataclasses
import difflib
import json
from collections.abc import Iterable
from typing import Any, get_args, get_origin

from formers.errors import ConfigError
from formers.spec.check import refuse
from formers.spec.core import Problem, Spec, fields_of
from formers.spec.fields import describe, fits, hints


def to_json(spec: Spec) -> str:
    """Every field of every part, defaults too, so that a file keeps its meaning when a default changes."""
    return json.dumps(_encode(spec), indent=2) + "\n"


def _encode(value: Any) -> Any:
    if isinstance(value, Spec):
        return {"kind": type(value).__name__, **{name: _encode(item) for name, item in fields_of(value)}}
    return [_encode(item) for item in value] if isinstance(value, tuple) else value


def from_json(text: str, name: str = "spec") -> Any:
    """The spec that `to_json` wrote. Raises ConfigError with every unknown kind, field and wrong type in it."""
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    if not isinstance(tree, dict) or "kind" not in tree:
        raise ConfigError(f"{name} is not a spec: it must be a JSON object with a field 'kind', such as 'Decoder'")
    problems: list[Problem] = []
    spec = _decode(tree, Any, name, problems)
    refuse(name, problems)
    return spec


def _decode(tree: Any, hint: Any, path: str, problems: list[Problem]) -> Any:
    if isinstance(tree, list):
        items = get_args(hint) if get_origin(hint) is tuple else ()
        inner = items[0] if len(items) == 2 and items[1] is Ellipsis else Any
        return tuple(_decode(item, inner, f"{path}[{i}]", problems) for i, item in enumerate(tree))
    if not isinstance(tree, dict):
        return tree
    kind = Spec.kinds.get(tree.get("kind", ""))
    if kind is None:
        problems.append(Problem(path, f"unknown kind {tree.get('kind')!r}", mean(str(tree.get("kind")), Spec.kinds)))
        return None
    return _construct(kind, {key: value for key, value in tree.items() if key != "kind"}, path, problems)


def _construct(kind: type[Spec], given: dict[str, Any], path: str, problems: list[Problem]) -> Any:
    declared, before = hints(kind), len(problems)
    values = {}
    for name, tree in given.items():
        if name not in declared:
            problems.append(Problem(path, f"{kind.__name__} has no field {name!r}", mean(name, declared)))
            continue
        count = len(problems)
        values[name] = _decode(tree, declared[name], f"{path}.{name}", problems)
        if len(problems) == count and not fits(values[name], declared[name]):
            what = f"{tree!r} is not {describe(declared[name])}"
            problems.append(Problem(f"{path}.{name}", what))
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name not in given and field.default is dataclasses.MISSING:
            problems.append(Problem(path, f"{kind.__name__} needs the field {field.name!r}"))
    return kind(**values) if len(problems) == before else None


def mean(wrong: str, known: Iterable[str]) -> str:
    """'did you mean ...?' for a misspelt name, or the names there are."""
    known = list(known)
    near = difflib.get_close_matches(wrong, known, n=1)
    return f"did you mean {near[0]!r}?" if near else "one of " + ", ".join(sorted(known))
