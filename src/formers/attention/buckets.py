"""Who meets whom by buckets that are known for all tokens: a full pass sorts, and decoding picks among earlier ones."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from formers.attention.plan import Plan, Tiles
from formers.attention.sorted.plan import Rules, SortedPlan, sort_by
from formers.places import Places

BEHIND = 1 << 30  # the bucket of padding
AT_ONCE = 64  # queries whose comparison with every token is held at a time


# (buckets (B, H, R, S), how many tokens are new, which are real, how many to meet) -> the tokens that each new one meets
Latest = Callable[[Tensor, int, Tensor | None, int], Tensor]


def by_bucket(buckets: Tensor, at: Places, to: Places, rules: Rules, latest: Latest, count: int) -> Plan | SortedPlan:
    """Who meets whom by buckets (B, H, R, S): sorted where a pass is whole, and token by token behind an earlier one."""
    if at.length == to.length:
        return sort_by(behind(buckets, to), rules)
    keys = latest(buckets, at.length, None if to.real is None else to.real[:, None, None], count)
    rows = torch.arange(at.length, device=keys.device)[None, None, :, None]
    return Plan((Tiles(rows, keys),), disjoint=True)


def behind(bucket: Tensor, places: Places) -> Tensor:
    """Buckets (B, H, R, S) with padding in one of its own, behind all others."""
    if places.real is None:
        return bucket
    return bucket.masked_fill(~places.real[:, None, None], BEHIND)


def recalled(buckets: Tensor, new: int, real: Tensor | None, width: int) -> Tensor:
    """For each of the `new` latest tokens, `width` up to it: those that share a bucket with it in any round, then the latest.

    buckets: (B, H, R, S); real: (B, 1, 1, S) bool or None. Gives tokens (B, H, new, width), -1 for none.
    """

    def rank(start: int, stop: int) -> Tensor:
        mine, slot = buckets[..., start:stop, None], torch.arange(buckets.shape[-1], device=buckets.device)
        shared = (mine == buckets[..., None, :]).any(2)
        weight = slot + shared * len(slot)
        seen = slot <= torch.arange(start, stop, device=slot.device)[:, None]
        if real is not None:
            seen = seen & real
        best, token = torch.where(seen, weight, -1).topk(width, dim=-1)
        return torch.where(best >= 0, token, -1)

    return _over(rank, buckets.shape[-1], new)


def same_bucket(buckets: Tensor, new: int, real: Tensor | None, reach: int) -> Tensor:
    """For each of the `new` latest tokens, in each round the `reach` latest up to it that share its bucket there.

    buckets: (B, H, R, S); real: (B, 1, 1, S) bool or None. Gives tokens (B, H, new, C), each once, -1 for none.
    """

    def latest(start: int, stop: int) -> Tensor:
        slot = torch.arange(buckets.shape[-1], device=buckets.device)
        met = buckets[..., start:stop, None] == buckets[..., None, :]
        met = met & (slot <= torch.arange(start, stop, device=slot.device)[:, None])
        if real is not None:
            met = met & real[:, :, None]
        token = torch.where(met, slot, -1).topk(min(reach, len(slot)), dim=-1).values
        token = token.transpose(2, 3).flatten(3).sort(-1).values
        again = F.pad(token[..., 1:] == token[..., :-1], (1, 0))
        return token.masked_fill(again, -1)

    return _over(latest, buckets.shape[-1], new)


def _over(choose: Callable[[int, int], Tensor], length: int, new: int) -> Tensor:
    first = length - new
    return torch.cat([choose(s, min(s + AT_ONCE, length)) for s in range(first, length, AT_ONCE)], 2)
