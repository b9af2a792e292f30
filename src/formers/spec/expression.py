"""Read a spec as one would write it, `Causal() & Window(256)`, without running any code."""

import ast
from typing import Any

from formers.errors import ConfigError
from formers.spec.codec import mean
from formers.spec.core import Spec
from formers.spec.fields import hints


def parse(text: str) -> Any:
    """The value of an expression of numbers, words, tuples and specs joined by & and |. Raises ConfigError."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise ConfigError(
            f"{text!r} cannot be read: write a value such as 12, none, half, or Rotary(theta=10000)"
        ) from None
    return _value(tree, text)


def _value(tree: ast.expr, text: str) -> Any:
    if isinstance(tree, ast.Constant):
        return tree.value
    if isinstance(tree, ast.Name):
        return {"none": None, "true": True, "false": False}.get(tree.id.lower(), tree.id)
    if isinstance(tree, (ast.Tuple, ast.List)):
        return tuple(_value(item, text) for item in tree.elts)
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        operand = _value(tree.operand, text)
        if isinstance(operand, (int, float)):
            return -operand
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, (ast.BitAnd, ast.BitOr)):
        return _joined(tree, text)
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
        return _called(tree, tree.func.id, text)
    raise ConfigError(f"{text!r} cannot be read: {ast.unparse(tree)!r} is neither a value nor a part")


def _joined(tree: ast.BinOp, text: str) -> Any:
    left, right = _value(tree.left, text), _value(tree.right, text)
    try:
        return left & right if isinstance(tree.op, ast.BitAnd) else left | right
    except TypeError:
        raise ConfigError(f"{text!r}: only patterns can be joined by & and |") from None


def _called(tree: ast.Call, name: str, text: str) -> Any:
    kind = Spec.kinds.get(name)
    if kind is None:
        raise ConfigError(f"{text!r}: there is no part named {name!r}; {mean(name, Spec.kinds)}")
    values = {keyword.arg: _value(keyword.value, text) for keyword in tree.keywords if keyword.arg}
    unknown = [key for key in values if key not in hints(kind)]
    if unknown:
        raise ConfigError(f"{text!r}: {name} has no field {unknown[0]!r}; {mean(unknown[0], hints(kind))}")
    try:
        return kind(*(_value(item, text) for item in tree.args), **values)
    except TypeError as error:
        raise ConfigError(f"{text!r}: {str(error).replace('__init__()', '')}") from None
