"""Does a value fit the type that a field was declared with? Said in words, so that an error can quote it."""

import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from formers.spec.core import Spec


def hints(kind: type[Spec]) -> dict[str, Any]:
    """The declared types of a spec's fields."""
    return {name: hint for name, hint in get_type_hints(kind).items() if name in kind.__dataclass_fields__}  # type: ignore[attr-defined]


def fits(value: Any, hint: Any) -> bool:
    """Is `value` of the declared type? An int may stand for a float; a bool never stands for a number."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in get_args(hint))
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in get_args(hint))
    if origin is tuple:
        items = get_args(hint)
        if not isinstance(value, tuple):
            return False
        if len(items) == 2 and items[1] is Ellipsis:
            return all(fits(item, items[0]) for item in value)
        return len(items) == len(value) and all(map(fits, value, items))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is None or hint is type(None):
        return value is None
    return hint is Any or isinstance(value, hint)


def describe(hint: Any) -> str:
    """A declared type in words: 'int or None', 'one of half, adjacent', 'several of Block'."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(option) for option in get_args(hint))
    if origin is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    if origin is tuple:
        items = [item for item in get_args(hint) if item is not Ellipsis]
        return "a tuple of " + ", ".join(map(describe, items))
    if hint is None or hint is type(None):
        return "None"
    return str(getattr(hint, "__name__", hint))
