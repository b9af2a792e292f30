"""What keys weigh besides their features: nothing at padding, in units of the highest so far, and less with every gate."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Weights(NamedTuple):
    """In N chunks of C tokens. None: 1 everywhere.

    within (B, H, N, C, C) or (C, C): of each key at each query of its chunk, 0 where the key is later.
    since (B, H, N, C): of the sums before the chunk, at each token. over (B, H, N): the same, behind the chunk.
    at_end (B, H, N, C): of each key, behind the chunk. peak (B, H): the highest so far.
    """

    within: Tensor
    since: Tensor | None
    over: Tensor | None
    at_end: Tensor | None
    peak: Tensor


def weigh(
    own: Tensor | None, gate: Tensor | None, real: Tensor | None, peak: Tensor, chunk: int, like: Tensor
) -> Weights:
    """Of tokens behind sums in units of exp(peak).

    own: (B, H, L), the logarithms of keys' units. gate: (B, H, L), logits. real: (B, H, L), False at padding. like: has
    the dtype and the device where none of these is given.
    """
    earlier = torch.ones(chunk, chunk, dtype=torch.bool, device=like.device).tril()
    if own is None and gate is None:
        within = earlier.to(like.dtype)
        if real is None:
            return Weights(within, None, None, None, peak)
        at_end = real.unflatten(2, (-1, chunk)).to(like.dtype)
        return Weights(within * at_end[..., None, :], None, None, at_end, peak)
    fed, level, entry, peak = _levels(own, gate, real, peak, chunk)
    apart = (level[..., None] + (fed - level)[..., None, :]).masked_fill(~earlier, float("-inf"))
    last = level[..., -1]
    at_end = (last[..., None] - level + fed).exp()
    return Weights(apart.exp(), (level - entry[..., None]).exp(), (last - entry).exp(), at_end, peak)


def _levels(
    own: Tensor | None, gate: Tensor | None, real: Tensor | None, peak: Tensor, chunk: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logarithms: what each key comes in with, fed (B, H, N, C); and a level (B, H, N, C), entry (B, H, N) before a
    chunk, that falls as earlier keys lose weight: of a key at s there is exp(fed_s + level_t - level_s) left at t."""
    fed = level = entry = torch.zeros((), dtype=peak.dtype, device=peak.device)
    if own is not None:
        shown = own if real is None else own.masked_fill(~real, float("-inf"))
        # The highest up to each token and none beyond: not even by rounding does the future matter.
        highest = torch.maximum(shown.detach().cummax(-1).values, peak[..., None])
        before = torch.cat([peak[..., None], highest[..., chunk - 1 : -1 : chunk]], -1)
        fed, level, entry, peak = shown - highest, -highest, -before, highest[..., -1]
        fed, level = (t.unflatten(2, (-1, chunk)) for t in (fed, level))
    if gate is not None:
        kept, taken = F.logsigmoid(gate), F.logsigmoid(-gate)
        if real is not None:
            kept, taken = kept.masked_fill(~real, 0), taken.masked_fill(~real, float("-inf"))
        kept, taken = (t.unflatten(2, (-1, chunk)) for t in (kept, taken))
        fed, level = fed + taken, level + kept.cumsum(-1)
        entry = entry.expand(level.shape[:-1])
    return fed, level, entry, peak


def weigh_all(own: Tensor | None, real: Tensor | None, peak: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """The same for sums that nobody reads before their end: what each key weighs there, (B, H, L), what is left of the
    sums before, (B, H), and the peak. None: 1."""
    if own is None:
        return (None if real is None else real.to(peak.dtype)), None, peak
    shown = own if real is None else own.masked_fill(~real, float("-inf"))
    highest = torch.maximum(shown.detach().amax(-1), peak)
    return (shown - highest[..., None]).exp(), (peak - highest).exp(), highest


def times(x: Tensor, weight: Tensor | None) -> Tensor:
    """x (..., E), each vector by its weight (...)."""
    return x if weight is None else x * weight[..., None]
