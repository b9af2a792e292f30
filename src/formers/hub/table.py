"""Weight maps as tables: a row for each tensor of a checkpoint family, read from left to right and from right to left."""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from formers.hub.transform import Behind, Same, Transform

BLOCK, BOTH = "{n}", ".*"
LEAVES = (".weight", ".bias")


@dataclass(frozen=True)
class Row:
    """A published tensor, and our tensor or tensors that hold the same numbers.

    In names, {n} stands for the number of a block and a last .* for .weight and .bias. A row holds for a model that has
    all of its tensors, so rows of optional parts (biases, heads) need no conditions.
    """

    theirs: str
    ours: str | tuple[str, ...]
    by: Transform = Same()


@dataclass(frozen=True)
class Tie:
    """A published tensor that is our tensor again, under another name: it may be left out, and must not differ."""

    theirs: str
    ours: str


@dataclass(frozen=True)
class Constant:
    """A published table (rows, width) that a formula makes: it may be left out, and must hold what the formula says.

    width: of the table, if it is written on export, with as many rows as the config has positions.
    """

    theirs: str
    make: Callable[[int, int], Tensor]
    width: int | None = None


@dataclass(frozen=True)
class Table:
    """The weights of a checkpoint family.

    prefix: of the bare model inside a model with a head; a file that leaves it out is read too. ignored: buffers that
    say nothing which the config does not say. renamed: old endings of names, and what they are called today.
    """

    prefix: str
    rows: tuple[Row, ...]
    ties: tuple[Tie, ...] = ()
    constants: tuple[Constant, ...] = ()
    ignored: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()

    def behind(self, rows: int) -> "Table":
        """The same table for checkpoints whose positions begin behind that many rows."""
        moved = (replace(row, by=Behind(rows)) if isinstance(row.by, Behind) else row for row in self.rows)
        return replace(self, rows=tuple(moved))

    def rows_for(self, ours: Collection[str]) -> list[Row]:
        """The rows of a model with these tensors, written out. Raises LookupError where one of them has no row."""
        rows = [row for row in self._written_out(ours) if all(name in ours for name in _names(row))]
        told = {name for row in rows for name in _names(row)}
        if untold := sorted(set(ours) - told):
            raise LookupError(f"the weight table has no row for {', '.join(untold)}")
        return rows

    def _written_out(self, ours: Collection[str]) -> Iterator[Row]:
        depth = 1 + max(
            (int(number) for name in ours for number in re.findall(r"\.blocks\.(\d+)(?=\.)", name)), default=-1
        )
        for row in self.rows:
            for n in range(depth) if BLOCK in row.theirs else (0,):
                for leaf in LEAVES if row.theirs.endswith(BOTH) else ("",):
                    theirs, *names = (_fill(name, n, leaf) for name in (row.theirs, *_names(row)))
                    yield Row(theirs, tuple(names), row.by)

    def ignores(self, name: str) -> bool:
        """Is this one of the buffers that say nothing?"""
        return any(re.fullmatch(re.escape(kind).replace(r"\{n\}", r"\d+"), name) for kind in self.ignored)

    def canonical(self, name: str, known: Collection[str]) -> str | None:
        """The name of today, with its prefix, of a name in a file; None if there is no such tensor."""
        for old, new in (("", ""), *self.renamed):
            if name.endswith(old):
                today = name.removesuffix(old) + new
                for full in (today, self.prefix + today):
                    if full in known or self.ignores(full):
                        return full
        return None


def _names(row: Row) -> tuple[str, ...]:
    return (row.ours,) if isinstance(row.ours, str) else row.ours


def _fill(name: str, n: int, leaf: str) -> str:
    return (name.removesuffix(BOTH) + leaf if leaf else name).replace(BLOCK, str(n))
