"""One choice among N in each of several blocks: how it is made, and how a gradient reaches what has made it."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from formers.call import Call
from formers.native import draws as native

COLD = 1e-6  # a temperature below which the largest is drawn, and logits divided by it might leave their range


def small_type(count: int) -> torch.dtype:
    """The smallest integers that number `count` things."""
    return torch.uint8 if count <= 256 else torch.int16 if count <= 1 << 15 else torch.int32


def best(logits: Tensor) -> Tensor:
    """The largest of each (..., N), as (...) of the smallest type."""
    found = logits.argmax(-1) if native.refuses_draws(logits) else native.draw(logits)
    return found.to(small_type(logits.shape[-1]))


def sample(logits: Tensor, temperature: float, chance: torch.Generator) -> Tensor:
    """One of each (..., N), drawn from softmax(logits / temperature); the largest at temperature 0.

    That is how argmax(logits + temperature * Gumbel noise) is distributed. It is drawn by one uniform number for each
    block and its running sums, where noise would be N numbers and two logarithms of each.
    """
    if temperature < COLD:
        return best(logits)
    shares = torch.rand(logits.shape[:-1], generator=chance, dtype=logits.dtype, device=logits.device)
    if native.refuses_draws(logits) is None:
        drawn = native.draw(logits, shares, temperature)
    else:
        sums = (logits.detach() / temperature).softmax(-1).cumsum(-1)
        drawn = torch.searchsorted(sums, shares[..., None] * sums[..., -1:], right=True).squeeze(-1)
        drawn = drawn.clamp_(max=logits.shape[-1] - 1)
    return drawn.to(small_type(logits.shape[-1]))


def one_hot(picked: Tensor, like: Tensor) -> Tensor:
    """1 at each choice (...) of `like` (..., N), 0 elsewhere."""
    return torch.zeros_like(like, requires_grad=False).scatter_(-1, picked.long()[..., None], 1)


def straight_through(value: Tensor | float, chances: Tensor) -> Tensor:
    """`value`, with the gradient of the chances: Bengio et al. 2013, arXiv:1308.3432. Exactly the value, not nearly."""
    return value + (chances - chances.detach())


def chance_of(logits: Tensor, picked: Tensor) -> Tensor:
    """The softmax of logits (..., N) at the choices (...) alone."""
    if native.refuses_draws(logits) is None:
        chances: Tensor = _ChanceOf.apply(logits, picked)
        return chances
    return logits.softmax(-1).gather(-1, picked.long()[..., None]).squeeze(-1)


class _ChanceOf(torch.autograd.Function):
    """Keeps no softmax: the way back makes it again."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, picked: Tensor) -> Tensor:
        chances, peaks, totals = native.weigh(logits, picked)
        ctx.save_for_backward(logits, picked, chances, peaks, totals)
        return chances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return native.slope(upstream, *ctx.saved_tensors), None


class Coin:
    """The random numbers of one part of one layer's pass: first a coin, then whatever is drawn where the data are.

    They follow from the seed of the call, so that a second pass over the same part throws the same coin. Nothing is drawn
    before somebody asks: evaluation never does.
    """

    def __init__(self, call: Call, path: tuple[int, ...]) -> None:
        self._call, self._path = call, path

    @cached_property
    def _thrown(self) -> tuple[float, torch.Generator]:
        chance = self._call.chance(self._path)
        return float(torch.rand((), generator=chance, dtype=torch.float64)), chance

    def falls(self, share: float) -> bool:
        """Whether this pass is among the given share of all."""
        return self._thrown[0] < share

    def on(self, device: torch.device) -> torch.Generator:
        """The generator of what follows, for tensors of a device."""
        chance = self._thrown[1]
        return chance if device.type == "cpu" else torch.Generator(device).manual_seed(chance.initial_seed())
