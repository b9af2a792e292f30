"""One kind of layer replaced wherever it stands in a model's spec."""

from collections.abc import Callable
from typing import Any

from formers.attention import Attention, Everything
from formers.call import Layer
from formers.errors import ConfigError
from formers.spec.core import fields_of


def require_usual(old: Attention, what: str, having: str, *free: str) -> None:
    """Raises ConfigError unless attention is to everything and has a key head for each head, all of its fields at their
    defaults but those that are `free`; `what` cannot be given to any other."""
    changes = {name: getattr(old, name) for name in ("pattern", "dropout", "heads_at_once", *free)}
    if old != Attention(old.heads, **changes) or old.pattern not in (None, Everything()):
        known = f"attention to everything, with {having} and a key head for each head"
        raise ConfigError(f"{old!r} cannot be given {what}: that is known of {known}")


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
