"""What the layers of a feedback memory meet: one key and one value a past token, the newest of every row in the last slot."""

from typing import NamedTuple

import torch
from torch import Tensor

from formers.state import Log


class Memories(NamedTuple):
    """The state of a feedback layer: of the last tokens of each row, their keys and values.

    k, v: (B, H, S, D). real: (B, S) bool, False in the first slots of rows that have seen fewer tokens than others; None:
    every slot of every row is somebody's. Slot S - d belongs to the token d before the next one, in every row, so that
    distances are the same for all rows whatever padding has stood where.
    """

    k: Log
    v: Log
    real: Tensor | None = None

    def last(self, count: int) -> "Memories":
        """The last `count` slots, or all where there are fewer."""
        if len(self.k) <= count:
            return self
        real = None if self.real is None else self.real[:, -count:]
        return Memories(self.k.last(count), self.v.last(count), _unless_all(real))

    def extend(self, k: Tensor, v: Tensor) -> "Memories":
        """With keys and values (B, H, T, D) of tokens that are real in every row behind them."""
        real = self.real
        if real is not None:
            real = torch.cat([real, real.new_ones(len(real), k.shape[2])], 1)
        return Memories(self.k.extend(k), self.v.extend(v), real)

    def aligned(self, surplus: Tensor) -> "Memories":
        """Without the last `surplus` (B,) slots of each row: all slots move up by so many, and the first are empty."""
        slots = len(self.k)
        index = torch.arange(slots, device=surplus.device) - surplus[:, None]
        index, real = index.clamp(min=0), index >= 0
        if self.real is not None:
            real = real & self.real.gather(1, index)
        needed = int(real.sum(1).amax())
        index, real = index[:, slots - needed :], real[:, slots - needed :]

        def moved(log: Log) -> Log:
            batch, heads, _, width = log.view.shape
            return Log(log.view.gather(2, index[:, None, :, None].expand(batch, heads, needed, width)))

        return Memories(moved(self.k), moved(self.v), _unless_all(real))


def _unless_all(real: Tensor | None) -> Tensor | None:
    return None if real is None or bool(real.all()) else real


class Rows(NamedTuple):
    """The real tokens of ragged rows, moved to the front of them: all rows begin together, and end one by one.

    lengths: (B,), real tokens of each row. order: (B, T'), which column of the call each is; T' is that of the longest row,
    and 1 at least. rank: (B, T), which of them each column is. real: (B, T) bool.
    """

    lengths: Tensor
    order: Tensor
    rank: Tensor
    real: Tensor

    @classmethod
    def of(cls, real: Tensor) -> "Rows":
        lengths = real.sum(1)
        longest = max(1, int(lengths.amax()))
        order = (~real).int().argsort(dim=1, stable=True)[:, :longest]
        return cls(lengths, order, (real.cumsum(1) - 1).clamp(min=0), real)

    def gathered(self, x: Tensor) -> Tensor:
        """x (B, T, M) -> (B, T', M)."""
        return x.gather(1, self.order[..., None].expand(-1, -1, x.shape[-1]))

    def spread(self, y: Tensor) -> Tensor:
        """y (B, T', M) -> (B, T, M), 0 at padding."""
        back = y.gather(1, self.rank[..., None].expand(-1, -1, y.shape[-1]))
        return back.masked_fill(~self.real[..., None], 0)

    @property
    def surplus(self) -> Tensor:
        """(B,): how many of the T' tokens of each row are none."""
        return self.order.shape[1] - self.lengths
