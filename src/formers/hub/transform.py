"""How one published tensor becomes one or more of ours, and back: orders of numbers, so both ways are exact."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Transform(Protocol):
    """A reversible change of layout: `theirs(ours(x)) == x`, bit for bit."""

    def ours(self, theirs: Tensor) -> Sequence[Tensor]:
        """The published tensor as our tensors, in the order of the row."""

    def theirs(self, ours: Sequence[Tensor]) -> Tensor:
        """Our tensors as the published one."""


class Same:
    """One tensor, laid out alike."""

    def ours(self, theirs: Tensor) -> Sequence[Tensor]:
        return [theirs]

    def theirs(self, ours: Sequence[Tensor]) -> Tensor:
        return ours[0]


class Transposed:
    """GPT-2's Conv1D keeps a matrix as (in, out); a Linear keeps it as (out, in)."""

    def ours(self, theirs: Tensor) -> Sequence[Tensor]:
        return [theirs.T]

    def theirs(self, ours: Sequence[Tensor]) -> Tensor:
        return ours[0].T


class Thirds:
    """Queries, keys and values one after another along the first axis."""

    def ours(self, theirs: Tensor) -> Sequence[Tensor]:
        return theirs.chunk(3)

    def theirs(self, ours: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(ours))


class TransposedThirds:
    """Queries, keys and values side by side in one Conv1D: (in, 3 * out)."""

    def ours(self, theirs: Tensor) -> Sequence[Tensor]:
        return theirs.T.chunk(3)

    def theirs(self, ours: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(ours)).T


@dataclass(frozen=True)
class Interleaved:
    """BLOOM's fused projection: for each head its query, key and value rows, (heads * 3 * head_dim, ...)."""

    heads: int

    def ours(self, theirs: Tensor) -> Sequence[Tensor]:
        return [part.flatten(0, 1) for part in theirs.unflatten(0, (self.heads, 3, -1)).unbind(1)]

    def theirs(self, ours: Sequence[Tensor]) -> Tensor:
        return torch.stack([part.unflatten(0, (self.heads, -1)) for part in ours], 1).flatten(0, 2)


class OneRow:
    """A vector kept as a matrix of one row."""

    def ours(self, theirs: Tensor) -> Sequence[Tensor]:
        return [theirs[0]]

    def theirs(self, ours: Sequence[Tensor]) -> Tensor:
        return ours[0][None]


@dataclass(frozen=True)
class Axis:
    """Reformer's table of one of several axes, (1, ..., length, ..., 1, width), as (length, width)."""

    number: int
    count: int

    def ours(self, theirs: Tensor) -> Sequence[Tensor]:
        return [theirs.flatten(0, -2)]

    def theirs(self, ours: Sequence[Tensor]) -> Tensor:
        length, width = ours[0].shape
        return ours[0].view(*(length if i == self.number else 1 for i in range(self.count)), width)


@dataclass(frozen=True)
class Behind:
    """A table of positions whose first `rows` rows no position reads: those up to that of padding, in RoBERTa's family."""

    rows: int

    def ours(self, theirs: Tensor) -> Sequence[Tensor]:
        return [theirs[self.rows :]]

    def theirs(self, ours: Sequence[Tensor]) -> Tensor:
        return torch.cat([ours[0].new_zeros(self.rows, ours[0].shape[1]), ours[0]])
