"""A checkpoint family: how its config.json becomes a spec and a spec its config.json, and the table of its weights."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from formers.errors import CheckpointError
from formers.hub.config import Alike, Fixed, Key, find_refused, itself, read_values, write_values
from formers.hub.table import Table
from formers.spec import Spec, diff

Parts = frozenset[str]
NO_PARTS: Parts = frozenset()
POSITIONS = "max_position_embeddings"

# Names are the user's; how parameters begin is nothing that trained weights remember; how work is cut changes nothing.
_FREE = re.compile(r"(source\.|target\.)?(name|init)\b.*|.*\.sublayers\[\d+\]\.(chunk|heads_at_once)")
# The number of a block, in the name of a tensor or in a path.
_BLOCK = re.compile(r"(?<=[.\[])\d+(?=[.\]])")


@dataclass(frozen=True)
class Format:
    """model_type: what config.json calls the family. kind: of its specs.

    keys: what shapes the model. build: their values and the optional parts to a spec. weights: a spec to its table.
    architectures: the classes that hold such models, each with its optional parts; the first is the usual one.
    parts: optional parts, by what stands in the names of their tensors. parts_of: those that a spec has.
    rules, notes: keys that may say one thing alone, and keys that shape nothing.
    unsaid: keys that config.json needs and a spec does not say, with what is written for them.
    flatten: a config.json as one level of keys, where the family nests them.
    ahead: rows of the position table that stand before those of positions, by config.json, which counts them too.
    """

    model_type: str
    kind: type[Spec]
    keys: tuple[Key, ...]
    build: Callable[[Mapping[str, Any], Parts], Spec]
    weights: Callable[[Any], Table]
    architectures: tuple[tuple[str, Parts], ...]
    parts: Mapping[str, str] = field(default_factory=dict)
    parts_of: Callable[[Any], Parts] = lambda spec: NO_PARTS
    rules: tuple[Fixed | Alike, ...] = ()
    notes: frozenset[str] = frozenset()
    unsaid: Mapping[str, Any] = field(default_factory=dict)
    flatten: Callable[[Mapping[str, Any]], Mapping[str, Any]] = itself
    ahead: Callable[[Mapping[str, Any]], int] = lambda config: 0

    def read(self, config: Mapping[str, Any], names: Collection[str] | None, where: str) -> Spec:
        """The spec that a config.json describes, with the optional parts that tensors of these names show.

        names: of the tensors; without them, `architectures` tells. Raises CheckpointError with all that cannot be
        mapped.
        """
        flat = self.counted(self.flatten(config), -self.ahead(config))
        problems: list[str] = []
        values = read_values(flat, self.keys, problems)
        shaping = {name for key in self.keys for name in (key.name, *key.also)}
        problems += find_refused(flat, values, self.rules, shaping | self.notes | self.unsaid.keys())
        parts = self._parts_told(config, problems) if names is None else self._parts_seen(names)
        if problems:
            raise CheckpointError(f"{where} cannot be mapped: {numbered(problems)}")
        return self.build(values, parts)

    def table(self, spec: Any, config: Mapping[str, Any]) -> Table:
        """Where the weights of a spec stand in the checkpoint that this config.json belongs to."""
        return self.weights(spec).behind(self.ahead(config))

    def counted(self, config: Mapping[str, Any], more: int) -> dict[str, Any]:
        """A config.json that tells of so many more rows of positions."""
        rows = config.get(POSITIONS)
        return {**config, POSITIONS: rows + more} if type(rows) is int else {**config}

    def attempt(self, spec: Any) -> tuple[dict[str, Any], list[str]]:
        """The config.json of a spec, and what it fails to say: found by reading it back and comparing."""
        written = write_values(spec, self.keys)
        parts = self.parts_of(spec)
        again = self.build(read_values(written, self.keys, []), parts)
        problems = [*_differences(again, spec)]
        named = [name for name, has in self.architectures if has == parts]
        if not named:
            problems.append(f"no class of this family has {' and '.join(sorted(parts))} alone")
        config = {"model_type": self.model_type, "architectures": named[:1], **self.unsaid, **written}
        return config, told_once(problems)

    def _parts_seen(self, names: Collection[str]) -> Parts:
        return frozenset(part for part, mark in self.parts.items() if any(mark in name for name in names))

    def _parts_told(self, config: Mapping[str, Any], problems: list[str]) -> Parts:
        usual = self.architectures[0][0]
        for name in config.get("architectures") or [usual]:
            for known, parts in self.architectures:
                if name == known:
                    return parts
            known_names = ", ".join(dict.fromkeys(known for known, _ in self.architectures))
            problems.append(f"architectures names {name}, and can only name {known_names}")
        return NO_PARTS


def numbered(problems: Iterable[str]) -> str:
    """'2 problems', and each on a line of its own."""
    lines = [f"\n  {i}. {problem}" for i, problem in enumerate(told_once(problems), 1)]
    return f"{len(lines)} problem{'s' * (len(lines) > 1)}" + "".join(lines)


def told_once(problems: Iterable[str]) -> list[str]:
    """The problems, those that several blocks have in common told for the first of them."""
    alike: dict[str, list[str]] = {}
    for problem in problems:
        alike.setdefault(_BLOCK.sub("*", problem), []).append(problem)
    return [each[0] + (f" (and {len(each) - 1} more like it)" if len(each) > 1 else "") for each in alike.values()]


def _differences(meant: Spec, given: Spec) -> Iterator[str]:
    """What a config.json would mean other than the spec."""
    for path, there, here in diff(meant, given):
        if not _FREE.fullmatch(path):
            yield f"{path} is {here!r}, and would be read as {there!r}"
