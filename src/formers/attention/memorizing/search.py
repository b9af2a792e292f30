"""The nearest keys of a memory: the search of a few by all their scores, and of many by the maxima of buckets."""

from typing import ClassVar

import torch
from torch import Tensor

from formers.attention.memorizing.buckets import nearest_by_buckets
from formers.attention.memorizing.reach import Reach
from formers.spec.core import Spec

FEW = 1 << 22  # up to this many scores are written out: below, that is faster than to avoid it
LEAST = 16  # so many queries at least make products worth their while


class Search(Spec):
    """How the nearest keys are found. certain: those with the highest scores, and no others."""

    certain: ClassVar[bool] = True


class ExactSearch(Search):
    """The keys with the highest scores.

    A large memory is first looked through in half precision where that is faster (bfloat16, on processors with AMX and on
    accelerators): buckets of eight neighbouring keys are told apart by their maxima, twice as many are kept as keys are
    asked for, and their keys are scored again in full. What rounding can have done is bounded, so it is known of which
    queries a key may have been missed; these search again in full precision. Their share is small unless very many keys
    are nearly the same.
    """


class ApproximateSearch(Search):
    """The same without the second search, so at the same cost for every memory: a key whose score lies within a rounding
    error of the last one may be missed for another.

    On TPUs the paper takes the maximum of each of many buckets and drops the others; here no bucket drops a key.
    """

    certain: ClassVar[bool] = False


@torch.no_grad()
def nearest(q: Tensor, k: Tensor, count: int, reach: Reach | None, search: Search) -> Tensor:
    """The slots of the keys with the highest scores, (B, H, T, count) int64, in no order; -1 where there are fewer.

    q (B, H, T, D) and k (B, H, S, D), of length 1; reach: what may be retrieved, None: all.
    """
    batch, heads, length, _ = q.shape
    found = q.new_full((batch, heads, length, count), -1, dtype=torch.int64)
    with torch.autocast(q.device.type, enabled=False):
        if length < LEAST or k.shape[2] <= LEAST * count or batch * heads * length * k.shape[2] <= FEW:
            top = _by_all_scores(q, k, count, reach)
            found[..., : top.shape[-1]] = top
            return found
        for row in range(batch):
            own = None if reach is None else reach.row(row)
            for head in range(heads):
                found[row, head] = nearest_by_buckets(q[row, head], k[row, head], count, own, certain=search.certain)
    return found


def _by_all_scores(q: Tensor, k: Tensor, count: int, reach: Reach | None) -> Tensor:
    scores = q @ k.to(q.dtype).mT
    if reach is not None:
        scores = scores.masked_fill_(~reach.among(slice(None))[:, None], float("-inf"))
    top = scores.topk(min(count, k.shape[2]), sorted=False)
    return top.indices.masked_fill_(top.values.isneginf(), -1)
