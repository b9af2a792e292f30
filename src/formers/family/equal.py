"""Comparing on equal terms: a member made as large as another."""

from collections.abc import Callable

from formers.model import Decoder, on_meta, parameter_count


def as_large(make: Callable[[int], Decoder], wanted: int, step: int) -> Decoder:
    """make(hidden), with hidden the multiple of `step` whose model comes nearest to `wanted` parameters.

    Parameters must grow evenly with hidden, as those of feed-forwards do.
    """
    first, second = (size(make(number * step)) for number in (1, 2))
    return make(step * max(1, 1 + round((wanted - first) / (second - first))))


def size(spec: Decoder) -> int:
    """The number of parameters, of which none is made."""
    return parameter_count(on_meta(spec))
