"""The root of every spec, and the site that a spec is checked and built at."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from typing_extensions import dataclass_transform


@dataclass(frozen=True)
class Site:
    """What surrounds a part: everything that it may need to know to be checked and built.

    dim: width of the residual stream; vocab: number of token ids; causal: every output must be blind to later
    tokens; streaming: outputs must not depend on how the sequence was cut into calls; encoder: an encoder's output
    can be attended to; heads, kv_heads, head_dim: set inside an attention part, 0 elsewhere; path: which block, sublayer, ...
    of the model this is, so that alike parts can draw unlike random numbers from one seed.
    """

    dim: int
    vocab: int = 0
    causal: bool = False
    streaming: bool = False
    encoder: bool = False
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    path: tuple[int, ...] = ()

    def replace(self, **changes: Any) -> "Site":
        return dataclasses.replace(self, **changes)

    def part(self, number: int) -> "Site":
        """The site of one of several parts that are built here."""
        return self.replace(path=(*self.path, number))


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what, and something to paste that mends it."""

    path: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.what}" + (f"\n      fix: {self.fix}" if self.fix else "")


@dataclass_transform(frozen_default=True)
class Spec:
    """A part of a model as a value: a subclass is a frozen dataclass by being written, and is known by its name.

    Subclasses say what is wrong with themselves in `problems`, and what their fields stand in with `inside`. carries: True
    for a part that is meant to be trained with a state that goes on from step to step, see `formers.carried`.
    """

    kinds: ClassVar[dict[str, type["Spec"]]] = {}
    carries: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        known = Spec.kinds.setdefault(cls.__name__, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"two kinds of spec are named {cls.__name__}: in {known.__module__} and {cls.__module__}")
        Spec.kinds[cls.__name__] = cls
        dataclass(frozen=True, repr=False)(cls)

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        """What is wrong with this part alone at this site, each with a mend that can be pasted."""
        return iter(())

    def inside(self, site: Site) -> Site:
        """The site of this part's own fields."""
        return site

    @property
    def marks(self) -> tuple[str, ...]:
        """The names of the marks that this part alone reads, of those that a call may give its tokens."""
        mark = getattr(self, "mark", None)
        return () if mark is None else (mark,)

    def replace(self, **changes: Any) -> Any:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def __repr__(self) -> str:
        """As one would write it: fields at their defaults are left out."""
        shown = []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.default is dataclasses.MISSING or value != field.default:
                shown.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


def parts_within(value: Any) -> Iterator[Spec]:
    """A spec and all specs within it."""
    if isinstance(value, Spec):
        yield value
        for _, item in fields_of(value):
            yield from parts_within(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from parts_within(item)


def marks_read(spec: Spec) -> frozenset[str]:
    """The names of the marks that a spec or any within it reads."""
    return frozenset(mark for part in parts_within(spec) for mark in part.marks)


def fields_of(spec: Spec) -> Iterator[tuple[str, Any]]:
    """The names and values of a spec's fields, in order."""
    for field in dataclasses.fields(spec):  # type: ignore[arg-type]
        yield field.name, getattr(spec, field.name)
