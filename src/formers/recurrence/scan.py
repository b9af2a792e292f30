"""A linear recurrence over a whole sequence in few steps, and its gradient, which is another one running backwards."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 16  # tokens gone through one by one, in all blocks at once; what blocks hand on is a sequence 16 times shorter


def scan(decay: Tensor, fed: Tensor, start: Tensor) -> Tensor:
    """c_t = decay_t * c_(t-1) + fed_t for decay, fed (B, T, W) and c before them, start (B, W): all of c, (B, T, W).

    In 2 * BLOCK steps for each factor of BLOCK in T, and without a division, so decays of 0 are as good as any.
    """
    states: Tensor = _Scan.apply(decay, fed, start)
    return states


class _Scan(torch.autograd.Function):
    """Keeps the decays and the states, where autograd would keep every step between them."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, fed: Tensor, start: Tensor) -> Tensor:
        states = run(decay, fed, start)
        ctx.save_for_backward(decay, states, start)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What reaches c_t is its own gradient and decay_(t+1) times what reaches c_(t+1)."""
        decay, states, start = ctx.saved_tensors
        later = torch.cat([decay[:, 1:], torch.zeros_like(decay[:, :1])], 1)
        reached = run(later.flip(1), upstream.flip(1), torch.zeros_like(start)).flip(1)
        before = torch.cat([start[:, None], states[:, :-1]], 1)
        return reached * before, reached, decay[:, 0] * reached[:, 0]


def run(decay: Tensor, fed: Tensor, start: Tensor) -> Tensor:
    """The recurrence without a gradient, in blocks."""
    length = fed.shape[1]
    if length == 1:
        return torch.addcmul(fed, decay, start[:, None])
    blocks = -(-length // BLOCK)
    room = blocks * BLOCK - length
    # What fills the last block up decays by 0 and comes behind everything: nothing reads it.
    decay, fed = (torch.nn.functional.pad(t, (0, 0, 0, room)).unflatten(1, (blocks, -1)).clone() for t in (decay, fed))
    for t in range(1, BLOCK):
        fed[:, :, t].addcmul_(decay[:, :, t], fed[:, :, t - 1])
        decay[:, :, t].mul_(decay[:, :, t - 1])
    handed_on = start[:, None]
    if blocks > 1:
        # fed is now each block's state where it begins with nothing, and decay what is left of what it begins with.
        ends = run(decay[:, :-1, -1], fed[:, :-1, -1], start)
        handed_on = torch.cat([handed_on, ends], 1)
    return fed.addcmul_(decay, handed_on[:, :, None]).flatten(1, 2)[:, :length]
