"""The parts of a spec, each with its path and its site, what attention looks at, and repetitions in a tuple of parts."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from formers.attention import Attention, Causal, Everything, SinkhornAttention, SpanAttention
from formers.attention.pattern import Pattern
from formers.attention.select import Selector
from formers.spec.core import Site, Spec, fields_of


class Place(NamedTuple):
    """A part of a model, where it stands in the spec, and the site that it is built at."""

    path: str
    part: Spec
    site: Site


def walk(value: Any, site: Site, path: str = "") -> Iterator[Place]:
    """Every part of a spec, itself first."""
    if isinstance(value, Spec):
        yield Place(path, value, site)
        inner = value.inside(site)
        for name, item in fields_of(value):
            yield from walk(item, inner, f"{path}.{name}".lstrip("."))
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from walk(item, site, f"{path}[{i}]")


@runtime_checkable
class Patterned(Protocol):
    """Attention that goes by a pattern: `Attention`, and others that say what it is at a site. One that learns spans tells
    the longest, whatever those of a model have come to."""

    heads: int

    def pattern_at(self, site: Site) -> Pattern: ...


class Look(NamedTuple):
    """A pattern that some attention parts share: their paths, and how many heads they have.

    by_content: what chooses pairs within the pattern; None: all of them meet.
    """

    pattern: Pattern
    heads: int
    paths: tuple[str, ...]
    by_content: Selector | SinkhornAttention | None = None

    @property
    def draws_pairs(self) -> bool:
        """Whether a text decides which pairs meet, each either wholly or not at all."""
        return isinstance(self.by_content, Selector)


def looks(model: Spec) -> list[Look]:
    """The different patterns of a model's attention parts, in the order in which they first appear."""
    found: dict[tuple[Pattern, int, Selector | SinkhornAttention | None], list[str]] = {}
    for path, part, where in walk(model, Site(dim=0)):
        if isinstance(part, Patterned):
            chosen = part.select if isinstance(part, Attention) else None
            found.setdefault((part.pattern_at(where), part.heads, chosen), []).append(path)
        elif isinstance(part, SinkhornAttention):
            plain = Causal() if where.causal else Everything()
            found.setdefault((plain, part.heads, part), []).append(path)
    return [Look(pattern, heads, tuple(paths), chosen) for (pattern, heads, chosen), paths in found.items()]


def learns_spans(model: Spec) -> bool:
    """Whether some attention learns how far back it looks."""
    return any(isinstance(part, SpanAttention) for _, part, _ in walk(model, Site(dim=0)))


class Repeat(NamedTuple):
    """Items [start, start + len(unit) * times) of a tuple: the unit, over and over."""

    start: int
    unit: tuple[Any, ...]
    times: int


def repeats(items: Sequence[Any]) -> list[Repeat]:
    """The items as runs of repeated units, each as long as it can be made, the shortest unit that makes it first."""
    found, start = [], 0
    while start < len(items):
        best = Repeat(start, (items[start],), 1)
        for width in range(1, (len(items) - start) // 2 + 1):
            unit = tuple(items[start : start + width])
            times = _times(items, start, unit)
            if times > 1 and times * width > len(best.unit) * best.times:
                best = Repeat(start, unit, times)
        found.append(best)
        start += len(best.unit) * best.times
    return found


def _times(items: Sequence[Any], start: int, unit: tuple[Any, ...]) -> int:
    times = 0
    while tuple(items[start + times * len(unit) : start + (times + 1) * len(unit)]) == unit:
        times += 1
    return times
