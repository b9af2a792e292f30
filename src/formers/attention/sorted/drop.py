"""Attention dropout without a mask: whether a weight is kept is told by a hash of a seed, the head and the two tokens.

So the backward pass, and a pass that is made again, drop the same weights, and nothing is stored. A pair that meets in
several rounds is kept or dropped in all of them. The native kernels (native/source/drop.h) work out the same numbers.
"""

from typing import NamedTuple

import torch
from torch import Tensor

WORD = 0xFFFFFFFF  # words have 32 bits; PyTorch holds them in int64, whose products may overflow above these
SPREAD = 0x9E3779B1  # odd, and far from a power of two: a query's word is told from a key's


class Drop(NamedTuple):
    """rate: the share of weights that are dropped, above 0. seed: (), int64, from 0 to below 2^31."""

    rate: float
    seed: Tensor

    def words(self, batch: int, heads: int, length: int, device: torch.device) -> Tensor:
        """One word (B, H, S) for each token of each head."""
        lanes = torch.arange(batch * heads, device=device).view(batch, heads, 1) * SPREAD
        return scattered(scattered(lanes + self.seed & WORD) + torch.arange(length, device=device) & WORD)

    def apply(self, weights: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        """Weights without those that are dropped, in place; the others grow to make up for them. queries, keys: the
        words of their tokens, which broadcast to the weights."""
        kept = scattered(queries * SPREAD + keys & WORD) >> 1 < int((1 - self.rate) * 2**31)
        return weights.mul_(kept).mul_(1 / (1 - self.rate) if self.rate < 1 else 0.0)


def scattered(x: Tensor) -> Tensor:
    """Other words, every bit of which depends on all bits of x; the hash function "lowbias32" of C. Wellons, 2018."""
    x = (x ^ x >> 16) * 0x7FEB352D & WORD
    x = (x ^ x >> 15) * 0x846CA68B & WORD
    return x ^ x >> 16
