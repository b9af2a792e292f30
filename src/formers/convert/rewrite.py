"""One kind of layer replaced wherever it stands in a model's spec."""

from collections.abc import Callable
from typing import Any

from formers.call import Layer
from formers.spec.core import fields_of


def rewritten(value: Any, change: Callable[[Any], Layer]) -> Any:
    """A layer, or a tuple of layers, in which `change` was asked of every layer inside, the innermost first.

    change: a layer to what stands in its place, itself where nothing is to change.
    """
    if isinstance(value, tuple):
        return tuple(rewritten(item, change) for item in value)
    if not isinstance(value, Layer):
        return value
    inside = {name: rewritten(item, change) for name, item in fields_of(value) if isinstance(item, (tuple, Layer))}
    return change(value.replace(**inside) if inside else value)
