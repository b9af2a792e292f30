"""What an agent sees and does, as values: some numbers, or one of several choices."""

from collections.abc import Iterator

import torch
from torch import Tensor

from formers.spec.core import Site, Spec


class Space(Spec):
    """The set of all observations, or of all actions."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one element as a tensor."""
        raise NotImplementedError

    @property
    def dtype(self) -> torch.dtype:
        raise NotImplementedError

    def require(self, name: str, elements: Tensor, rows: tuple[int, ...]) -> None:
        """Raise ValueError unless there is an element for each of the rows (B, T), say."""
        if elements.shape != (*rows, *self.shape):
            wanted, given = (*rows, *self.shape), tuple(elements.shape)
            raise ValueError(f"{name} are elements of {self!r} and must be {wanted}, got {given}")


class Numbers(Space):
    """`width` numbers, each between its low and its high where both are given."""

    width: int
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.width < 1:
            yield f"{self.width} numbers tell nothing", "width=1"
        if (self.low is None) != (self.high is None):
            yield "numbers are bounded on both sides or on neither", "low=none, high=none"
        for name, bound in (("low", self.low), ("high", self.high)):
            if bound is not None and len(bound) != self.width:
                yield f"{name} bounds {len(bound)} of {self.width} numbers", "low=none, high=none"
        pairs = zip(self.low or (), self.high or (), strict=False)  # of unequal length is told above
        if any(low >= high for low, high in pairs):
            yield f"nothing lies between {self.low} and {self.high}", "low=none, high=none"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.width,)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32


class Choices(Space):
    """One of `count` choices, told by its number from 0."""

    count: int

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.count < 1:
            yield f"there is nothing to choose among {self.count} choices", "count=2"

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    @property
    def dtype(self) -> torch.dtype:
        return torch.int64
