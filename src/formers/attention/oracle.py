"""The dense reference that every faster path is held against: short enough to be trusted by reading."""

import torch
from torch import Tensor


def attend_dense(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, scale: float | None = None, bias: Tensor | None = None
) -> Tensor:
    """softmax(q k^T * scale + bias) v over the pairs of `mask`; a query that sees nothing gets 0.

    q (B, H, T, D); k (B, H, S, D); v (B, H, S, E); mask and bias broadcast to (B, H, T, S); returns (B, H, T, E).
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = q @ k.mT * scale + (0 if bias is None else bias)
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    return torch.where(mask.any(-1, keepdim=True), weights, 0) @ v
