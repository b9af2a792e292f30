"""Tokens laid out by position, each at its own, whatever padding stands between them."""

from typing import NamedTuple

import torch
from torch import Tensor

from formers.places import Places


class Laid(NamedTuple):
    """Where the tokens of a call go. length: N, one more than the last position that a token stands at.

    pos: (B, T) int64, the position of each token, N for padding; None: they stand at 0, 1, ... as they are.
    real: (B, N) bool, the positions at which a token stands; None: all of them.
    """

    length: int
    pos: Tensor | None = None
    real: Tensor | None = None

    def out(self, x: Tensor) -> Tensor:
        """x (B, T, M) by position, (B, N, M): zeros where no token stands."""
        if self.pos is None:
            return x
        room = x.new_zeros(len(x), self.length + 1, x.shape[2])
        pos = self.pos.expand(len(x), -1)[..., None].expand_as(x)
        return room.scatter(1, pos, x)[:, : self.length]


def laid(at: Places) -> Laid:
    """The layout of tokens at these places."""
    if at.start == 0:
        return Laid(at.length)
    length = max(1, at.bounds[1] + 1)
    pos = at.pos if at.real is None else at.pos.where(at.real, length)
    room = torch.zeros(len(pos), length + 1, dtype=torch.bool, device=pos.device)
    return Laid(length, pos, room.scatter(1, pos, torch.ones_like(pos, dtype=torch.bool))[:, :length])
