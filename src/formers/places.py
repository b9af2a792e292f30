"""Where tokens stand: their positions, which of them are real, and the marks that they carry."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Run(NamedTuple):
    """start, start + 1, ...: the places of unbroken text."""

    start: int
    length: int
    device: torch.device | None


class Places:
    """The places of T tokens in each row of a batch. Compared by identity, so that it can key a memo.

    pos: (1 or B, T) int64, the position of each token in its row; padding does not count.
    real: (B, T) bool, False at padding, or None where every token is real.
    marks: name -> (B, T), what else is known of each token (segments, documents, global tokens).
    start: not None says that every row stands at start, start + 1, ... without padding, which lets fused kernels run.
    """

    def __init__(
        self,
        pos: Tensor | None,
        real: Tensor | None = None,
        marks: Mapping[str, Tensor] | None = None,
        run: Run | None = None,
    ) -> None:
        self._pos, self.real, self.marks, self._run = pos, real, marks or {}, run
        self.start = None if run is None else run.start
        self._bounds: tuple[int, int] | None = None if run is None else (run.start, run.start + run.length - 1)

    @classmethod
    def run(
        cls, start: int, length: int, device: torch.device | None = None, marks: Mapping[str, Tensor] | None = None
    ) -> "Places":
        """start, start + 1, ..., the same for every row, nothing of it padding."""
        return cls(None, None, marks, Run(start, length, device))

    @property
    def pos(self) -> Tensor:
        if self._pos is None:  # a run is written out only when somebody asks: most steps of decoding never do
            assert self._run is not None
            start, length, device = self._run
            self._pos = torch.arange(start, start + length, device=device)[None]
        return self._pos

    @property
    def length(self) -> int:
        return self._run.length if self._run is not None else self.pos.shape[1]

    @property
    def device(self) -> torch.device | None:
        return self._run.device if self._run is not None else self.pos.device

    @property
    def bounds(self) -> tuple[int, int]:
        """The lowest and highest position of any real token; (0, -1) where there is none."""
        if self._bounds is None:
            pos = self.pos if self.real is None else self.pos.expand_as(self.real)[self.real]
            self._bounds = (int(pos.min()), int(pos.max())) if pos.numel() else (0, -1)
        return self._bounds

    def join(self, later: "Places") -> "Places":
        """These places, then the later ones. Raises ValueError where only one side carries a mark."""
        if set(self.marks) != set(later.marks):
            odd = sorted(set(self.marks) ^ set(later.marks))
            raise ValueError(
                f"the marks {odd} were given in one call and not in another: give them in every call of a stream"
            )
        marks = {name: torch.cat([mark, later.marks[name]], 1) for name, mark in self.marks.items()}
        if self.start is not None and later.start == self.start + self.length:
            return Places.run(self.start, self.length + later.length, self.device, marks)
        rows = max(self._rows, later._rows)
        pos = torch.cat([self.pos.expand(rows, -1), later.pos.expand(rows, -1)], 1)
        if self.real is None and later.real is None:
            return Places(pos, None, marks)
        return Places(pos, torch.cat([self._all_real(rows), later._all_real(rows)], 1), marks)

    def last(self, count: int) -> "Places":
        """The last `count` places."""
        cut = slice(self.length - count, None)
        marks = {name: mark[:, cut] for name, mark in self.marks.items()}
        if self.start is not None:
            return Places.run(self.start + self.length - count, count, self.device, marks)
        return Places(self.pos[:, cut], None if self.real is None else self.real[:, cut], marks)

    def some(self, index: Tensor) -> "Places":
        """The places at these indices (n,), in their order."""
        marks = {name: mark[:, index] for name, mark in self.marks.items()}
        return Places(self.pos[:, index], None if self.real is None else self.real[:, index], marks)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Places":
        """A change of every tensor with a row for each example, such as a choice of rows."""
        marks = {name: change(mark) for name, mark in self.marks.items()}
        if self._run is not None:
            return Places(None, None, marks, self._run)
        real = None if self.real is None else change(self.real)
        return Places(change(self.pos.expand(self._rows, -1)), real, marks)

    @property
    def _rows(self) -> int:
        rows = 1 if self._run is not None else self.pos.shape[0]
        return max([rows, *(t.shape[0] for t in (self.real, *self.marks.values()) if t is not None)])

    def _all_real(self, rows: int) -> Tensor:
        if self.real is not None:
            return self.real
        return torch.ones(rows, self.length, dtype=torch.bool, device=self.device)


class Spots:
    """Places shaped to meet others: pos and marks broadcast against those of the other side, head by head."""

    def __init__(self, pos: Tensor, marks: Mapping[str, Tensor]) -> None:
        self.pos, self.marks = pos, marks

    @classmethod
    def of(cls, places: Places, shape: Callable[[Tensor], Tensor]) -> "Spots":
        return cls(shape(places.pos), {name: shape(mark) for name, mark in places.marks.items()})

    def each(self, change: Callable[[Tensor], Tensor]) -> "Spots":
        """The same places with every tensor changed alike."""
        return Spots(change(self.pos), {name: change(mark) for name, mark in self.marks.items()})


def queries(places: Places) -> Spots:
    """As the rows of a score matrix: (1 or B, 1, T, 1)."""
    return Spots.of(places, lambda t: t[:, None, :, None])


def keys(places: Places) -> Spots:
    """As the columns of a score matrix: (1 or B, 1, 1, S)."""
    return Spots.of(places, lambda t: t[:, None, None, :])


class Memo:
    """What one call has already worked out, such as a mask that many layers share. It dies with the call."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value for this key, made the first time that it is asked for."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]
