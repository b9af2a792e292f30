"""A spec as a tree that can be read: defaults left out, repeated parts told once, paths as `--set` takes them."""

from collections.abc import Iterator
from typing import Any

from rich.text import Text
from rich.tree import Tree

from formers.report.parts import Repeat, repeats
from formers.spec.core import Spec, fields_of


def spec_tree(spec: Spec) -> Tree:
    """The tree of a spec, in the order of its fields."""
    return _grow(Tree(_header(spec), guide_style="dim"), spec)


def _grow(tree: Tree, spec: Spec) -> Tree:
    for name, value in fields_of(spec):
        if isinstance(value, Spec):
            _add(tree, name, value)
        elif _holds_parts(value):
            for repeat in repeats(value):
                _add_repeat(tree, name, repeat)
    return tree


def _add(tree: Tree, label: str, value: Spec, times: int = 1) -> None:
    """A branch where there is a depth below, else one line as it would be written in Python."""
    deep = _is_deep(value)
    line = _line(label, _header(value) if deep else Text(repr(value)), times)
    branch = tree.add(line)
    if deep:
        _grow(branch, value)


def _add_repeat(tree: Tree, name: str, repeat: Repeat) -> None:
    start, unit, times = repeat
    if len(unit) == 1:
        label = f"{name}[{start}]" if times == 1 else f"{name}[{start}..{start + times - 1}]"
        _add(tree, label, unit[0], times)
        return
    end = start + len(unit) * times - 1
    branch = tree.add(_line(f"{name}[{start}..{end}]", Text(f"these {len(unit)}"), times))
    for i, item in enumerate(unit, start):
        _add(branch, f"{name}[{i}], [{i + len(unit)}], .. [{end - len(unit) + 1 + i - start}]", item)


def _line(label: str, value: Text, times: int) -> Text:
    line = Text.assemble((label, "cyan"), " = ", value)
    return line if times == 1 else line.append(f" x {times}", style="bold magenta")


def _header(spec: Spec) -> Text:
    """The kind of a spec and those of its fields that are plain values."""
    plain = ", ".join(f"{name}={value!r}" for name, value in fields_of(spec) if _is_plain(value))
    return Text.assemble((type(spec).__name__, "bold"), f"({plain})" if plain else "")


def _is_plain(value: Any) -> bool:
    return not isinstance(value, Spec) and not _holds_parts(value)


def _holds_parts(value: Any) -> bool:
    return isinstance(value, tuple) and any(isinstance(item, Spec) for item in value)


def _is_deep(spec: Spec) -> bool:
    """Does a tuple of parts stand in it, or below it?"""
    return any(_holds_parts(value) for value in _values_below(spec))


def _values_below(spec: Spec) -> Iterator[Any]:
    for _, value in fields_of(spec):
        yield value
        if isinstance(value, Spec):
            yield from _values_below(value)
