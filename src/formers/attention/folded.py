"""Attention of few queries to many inputs, whose keys and values are never made.

A score is linear in its key and an output in its values, so the projections may act on the other side of the products:
q (W_k x) is (q W_k) x, and a sum over W_v x is W_v times the sum over x. For G queries and heads D wide this takes G / D of
the operations that projecting all inputs takes, and none of the memory.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.places import Places


def attend_inputs(
    q: Tensor, x: Tensor, at: Places, k_proj: nn.Linear, v_proj: nn.Linear, scale: float, dropout: float = 0.0
) -> Tensor:
    """What queries q (B, H, G, D) get, (B, H, G, D), from all real inputs x (B, T, M) at `at`, by softmax attention.

    k_proj, v_proj: M -> H * D, of keys, which no position turns, and of values. dropout: rate at which weights are dropped.
    """
    heads = q.shape[1]
    turned = by_head(q, k_proj.weight.unflatten(0, (heads, -1)))  # (B, H, G, M)
    scores = turned.flatten(1, 2) @ x.mT
    if k_proj.bias is not None:  # the same for all keys: no weight depends on it, as none does where keys are made
        scores = scores + (q * k_proj.bias.view(heads, 1, -1)).sum(-1).flatten(1)[..., None]
    if at.real is not None:
        scores = scores.masked_fill(~at.real[:, None], torch.finfo(scores.dtype).min)
    weights = F.dropout((scale * scores).softmax(-1), dropout)
    met = (weights @ x).unflatten(1, (heads, -1))  # (B, H, G, M)
    seen = by_head(met, v_proj.weight.unflatten(0, (heads, -1)).mT)
    if v_proj.bias is None:
        return seen
    return seen + weights.sum(-1).unflatten(1, (heads, -1))[..., None] * v_proj.bias.view(heads, 1, -1)


def by_head(rows: Tensor, matrices: Tensor) -> Tensor:
    """rows (B, H, G, M) times each head's matrix (H, M, N), (B, H, G, N): all batch rows at once, or the gradient by the
    matrices would be made for each of them and added up."""
    together = rows.transpose(0, 1).flatten(1, 2) @ matrices
    return together.unflatten(1, (len(rows), -1)).transpose(0, 1)


def folding_pays(queries: int, head_dim: int) -> bool:
    """Whether so many queries of a row are few enough."""
    return 2 * queries <= head_dim
