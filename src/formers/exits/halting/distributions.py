"""How likely a token is to leave after each of N blocks: distributions that are trained, Elbayad et al., arXiv:1910.10073."""

import torch
from torch import Tensor
from torch.nn import functional as F


def geometric(logits: Tensor) -> Tensor:
    """log q (..., N) of leaving after each block, given the logits (..., N - 1) of leaving after each one but the last.

    A token that has come to block n leaves there with probability chi_n = sigmoid(logit_n), so
    q(n) = chi_n (1 - chi_1) ... (1 - chi_{n-1}). After the last block all leave: it has what is left, and q sums to 1.
    """
    stayed = F.pad(F.logsigmoid(-logits).cumsum(-1), (1, 0))
    return stayed + F.pad(F.logsigmoid(logits), (0, 1))


def cross_entropy(log_q: Tensor, wanted: Tensor, real: Tensor | None = None) -> Tensor:
    """-log q(wanted) in nats, a mean over what is real: a scalar. log_q (..., N); wanted (...), exits counted from 1."""
    nats = -log_q.gather(-1, (wanted - 1)[..., None])[..., 0]
    if real is None:
        return nats.mean()
    return torch.where(real, nats, 0).sum() / real.sum().clamp(min=1)
