"""Tokens laid out in whole blocks, counted row by row, wherever in a batch they stand and whatever padding is between."""

import torch
from torch import Tensor
from torch.nn import functional as F

from formers.places import Places


class Grid:
    """The blocks that a call works on: from the one that its first token falls into, to the last that it reaches.

    Built from the places of this call and those of all tokens so far (the same, where there is no past). A token's
    rank is how many real tokens of its row came before it; rows that have seen different numbers of tokens have
    different first blocks. Shapes: B (or 1, where no row has padding) rows, W blocks of `block` slots, N blocks so far.
    """

    def __init__(self, at: Places, to: Places, block: int) -> None:
        self.block, self.at, self.to = block, at, to
        self.run = to.real is None
        if self.run:
            self.before, self.total = (torch.tensor([n]) for n in (to.length - at.length, to.length))
            self.first_of_all = (to.length - at.length) // block
            self.width = max(1, -(-to.length // block) - self.first_of_all)
            self.blocks = max(1, -(-to.length // block))
        else:
            self.total = _real(to).sum(1)
            self.before = self.total - _real(at).sum(1)
            reach = -(-self.total // block) - self.before // block
            self.width, self.blocks = (max(1, int(n.max())) for n in (reach, -(-self.total // block)))
        self.before, self.total = self.before.to(to.device), self.total.to(to.device)
        self.first = self.before // block
        self.index = self.first[:, None] + torch.arange(self.width, device=to.device)  # (B, W): which blocks they are
        self._slots = None if self.run else self._slots_by_rank()

    def window(self, x: Tensor) -> Tensor:
        """x (B, S, ...) of all tokens so far -> (B, W * block, ...), 0 where there is no token."""
        count = self.width * self.block
        if self.run:
            return _stretch(_cut(x, self.first_of_all * self.block, x.shape[1]), 0, count)
        return self._gather(x, self.first * self.block, count, 0)

    def fresh(self, x: Tensor) -> Tensor:
        """x (B, T, ...) of this call's tokens -> (B, W * block, ...), 0 where there is none."""
        count = self.width * self.block
        if self.run:
            return _stretch(x, self.to.length - self.at.length - self.first_of_all * self.block, count)
        return self._gather(x, self.first * self.block, count, self.to.length - self.at.length)

    def everything(self, x: Tensor) -> Tensor:
        """x (B, S, ...) of all tokens so far -> (B, N * block, ...)."""
        count = self.blocks * self.block
        return _stretch(x, 0, count) if self.run else self._gather(x, torch.zeros_like(self.first), count, 0)

    def back(self, y: Tensor) -> Tensor:
        """y (B, W * block, ...) -> (B, T, ...): what stands at this call's tokens, anything at padding."""
        if self.run:
            offset = self.to.length - self.at.length - self.first_of_all * self.block
            return _cut(y, offset, offset + self.at.length)
        return take(y, self.offsets.clamp(0, y.shape[1] - 1))

    @property
    def offsets(self) -> Tensor:
        """(B, T): in which slot of the window each token of this call stands; at padding, of the token before it."""
        if self.run:
            rank = self.before[:, None] + torch.arange(self.at.length, device=self.before.device)
        else:
            rank = _ranks(self.to)[:, -self.at.length :]
        return rank - self.first[:, None] * self.block

    def add(self, table: Tensor | None, new: Tensor) -> Tensor:
        """A table (B, N, ...) with one entry for each block, and `new` (B, W, ...) added at the window's blocks."""
        longer = new.new_zeros(new.shape[0], self.blocks + 1, *new.shape[2:])
        index = self.index.clamp(max=self.blocks).expand(new.shape[0], -1)
        longer = longer.scatter_add(1, index[..., None].expand_as(new), new)[:, : self.blocks]
        return longer if table is None else longer + _stretch(table, 0, self.blocks)

    def _slots_by_rank(self) -> Tensor:
        """(B, N * block + 1): in which slot of all tokens that of each rank stands, -1 for none."""
        real, room = _real(self.to), self.blocks * self.block
        ranks = torch.where(real, _ranks(self.to), room)
        slots = torch.full((len(real), room + 1), -1, device=real.device)
        slots = slots.scatter(1, ranks, torch.arange(real.shape[1], device=real.device).expand_as(ranks))
        slots[:, room] = -1  # where padding was sent
        return slots

    def _gather(self, x: Tensor, start: Tensor, count: int, skipped: int) -> Tensor:
        assert self._slots is not None
        rank = start[:, None] + torch.arange(count, device=start.device)
        slot = self._slots.gather(1, rank.clamp(max=self._slots.shape[1] - 1)) - skipped
        found = (slot >= 0).view(*slot.shape, *[1] * (x.dim() - 2))
        return take(x, slot.clamp(min=0)).masked_fill(~found, 0)


def take(x: Tensor, index: Tensor) -> Tensor:
    """x (B, S, ...) at index (B, R) -> (B, R, ...)."""
    index = index.expand(x.shape[0], -1)
    wide = index.view(*index.shape, *[1] * (x.dim() - 2)).expand(*index.shape, *x.shape[2:])
    return x.gather(1, wide)


def _cut(x: Tensor, start: int, stop: int) -> Tensor:
    """x[:, start:stop]; all of x as it is, which saves the way back a zeroed copy."""
    return x if (start, stop) == (0, x.shape[1]) else x[:, start:stop]


def _stretch(x: Tensor, left: int, count: int) -> Tensor:
    """x (B, S, ...) with `left` zeros in front, and as many behind as make it `count` long."""
    right = count - left - x.shape[1]
    if left == right == 0:
        return x
    return F.pad(x, (0, 0) * (x.dim() - 2) + (left, right))


def _real(places: Places) -> Tensor:
    return torch.ones_like(places.pos, dtype=torch.bool) if places.real is None else places.real


def _ranks(places: Places) -> Tensor:
    return _real(places).cumsum(1) - 1
