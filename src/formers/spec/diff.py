"""What differs between two specs, by path."""

from collections.abc import Iterator
from typing import Any

from formers.spec.core import Spec, fields_of


def diff(left: Any, right: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (path, left value, right value) wherever two specs differ, as deep as they are alike."""
    if isinstance(left, Spec) and type(left) is type(right):
        for (name, a), (_, b) in zip(fields_of(left), fields_of(right), strict=True):
            yield from diff(a, b, f"{path}.{name}".lstrip("."))
    elif isinstance(left, tuple) and isinstance(right, tuple) and len(left) == len(right):
        for i, (a, b) in enumerate(zip(left, right, strict=True)):
            yield from diff(a, b, f"{path}[{i}]")
    elif left != right:
        yield path, left, right
