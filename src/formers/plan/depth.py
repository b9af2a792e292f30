"""Deep models through shallow ones: what is measured of a few equal blocks tells it of many."""

from collections.abc import Callable, Iterator
from typing import Any

from formers.call import Layer
from formers.spec.core import Spec, fields_of

FEW = 1  # periods that a shortened depth keeps; one more is measured to see what each adds


def stretches(spec: Spec) -> list[int]:
    """How many times each depth within a spec repeats itself, where it is long enough to be shortened."""
    found: list[int] = []

    def look(times: int) -> int:
        found.append(times)
        return times

    _with_depths(spec, look)
    return found


def shortened(spec: Any, times: list[int]) -> Any:
    """The same spec whose depths repeat themselves so many times, in the order of `stretches`."""
    left = iter(times)
    return _with_depths(spec, lambda _: next(left))


def extrapolated(measure: Callable[[Any], dict[str, float]], spec: Any) -> dict[str, float]:
    """What `measure` would give for a spec, if it is a sum of what each block adds: by measuring shallower ones."""
    wanted = stretches(spec)
    few = [FEW] * len(wanted)
    at_few = measure(shortened(spec, few))
    total = dict(at_few)
    for i, times in enumerate(wanted):
        one_more = measure(shortened(spec, [*few[:i], FEW + 1, *few[i + 1 :]]))
        for name in {*at_few, *one_more}:
            added = one_more.get(name, 0) - at_few.get(name, 0)
            total[name] = total.get(name, 0) + (times - FEW) * added
    return total


def _with_depths(value: Any, choose: Callable[[int], int]) -> Any:
    """A spec in which every depth that repeats itself does so as often as `choose`, given how often it does, says."""
    if isinstance(value, tuple):
        if value and all(isinstance(item, Layer) for item in value):
            period = next(_periods(value))
            times = len(value) // period
            if times > 2 * FEW + 1:  # fewer are measured sooner as they are
                return value[:period] * choose(times)
        return tuple(_with_depths(item, choose) for item in value)
    if not isinstance(value, Spec):
        return value
    old = dict(fields_of(value))
    changed = {name: _with_depths(field, choose) for name, field in old.items()}
    changed = {name: field for name, field in changed.items() if field is not old[name] and field != old[name]}
    return value.replace(**changed) if changed else value


def _periods(layers: tuple[Any, ...]) -> Iterator[int]:
    """After how many layers the depth begins anew, the fewest first."""
    count = len(layers)
    for period in range(1, count + 1):
        if count % period == 0 and layers == layers[:period] * (count // period):
            yield period
