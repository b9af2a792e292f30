"""The attention weights themselves, for rules that go by them; no backend hands them out."""

import torch
from torch import Tensor

from formers.attention.request import Request, for_each
from formers.places import Spots


def attention_weights(request: Request) -> Tensor:
    """How much each query attends to each key, (B, H, T, S); 0 to all by a query that sees nothing. Dense."""
    q, k = request.q, for_each(request.q, request.k)
    q_at = Spots.of(request.at, lambda t: t[:, None, None, :, None])
    k_at = Spots.of(request.to, lambda t: t[:, None, None, None, :])
    head = torch.arange(q.shape[1], device=q.device)[:, None, None, None]
    scores = request.position.scores(q[:, :, None], k[:, :, None], q_at, k_at, head) * request.scale
    if request.position.biased:
        scores = scores + request.position.bias(q_at, k_at, head).to(scores.dtype)
    mask = request.mask()
    weights = scores[:, :, 0].masked_fill(~mask, float("-inf")).softmax(-1)
    return torch.where(mask.any(-1, keepdim=True), weights, 0)
