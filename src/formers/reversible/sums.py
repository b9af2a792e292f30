"""Sums of what the parts of a reversible stack give, and of gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor

from formers.parts import pieces

# Elements of a narrower tensor that are widened at a time: so many stay in a core's cache.
WIDENED = 1 << 18


class Gradients:
    """Sums of gradients, by tensor."""

    def __init__(self) -> None:
        self._sums: dict[Tensor, Tensor] = {}

    def add(self, of: Sequence[Tensor], found: Sequence[Tensor | None]) -> None:
        """Never in place: autograd may have handed the same tensor to several."""
        for tensor, gradient in zip(of, found, strict=True):
            if gradient is not None:
                self._sums[tensor] = self._sums[tensor] + gradient if tensor in self._sums else gradient

    def get(self, tensor: Tensor | None) -> Tensor | None:
        """The sum for a tensor, or None if nothing reached it."""
        return None if tensor is None else self._sums.get(tensor)


def summed(total: Tensor | None, more: Tensor, *, alone: bool) -> Tensor:
    """The sum so far and one more, of several in fp32 or better. Their first is copied, since autograd may share what it
    hands out."""
    if total is None:
        return more if alone else more.to(torch.promote_types(more.dtype, torch.float32), copy=True)
    return add_to(total, more)


def add_to(total: Tensor, more: Tensor, sign: int = 1) -> Tensor:
    """total (B, T, M) += sign * more, in place.

    PyTorch on the CPU widens the whole of a narrower tensor first, which takes longer than the sum, and as much memory as
    the total: here that is done some tokens at a time.
    """
    if more.dtype == total.dtype or total.device.type != "cpu":
        return total.add_(more, alpha=sign)
    batch, length, width = total.shape
    size = min(max(1, WIDENED // (batch * width)), length)
    room = total.new_empty(batch, size, width)
    for rows in pieces(length, size):
        wide = room[:, : rows.stop - rows.start].copy_(more[:, rows])
        total[:, rows].add_(wide, alpha=sign)
    return total
