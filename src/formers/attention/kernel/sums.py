"""Running sums over keys, each read by the query of its token: attention by features in a decoder.

B batch, H heads, T tokens, D head width, F features, E = D + 1: values and, behind them, a 1 that weights are summed by,
so that one product gives numerators and denominators. L is the tokens of a piece, in N chunks of C.
"""

import functools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from formers.attention.kernel.chunks import scan
from formers.attention.kernel.features import FeatureLayer, Features
from formers.attention.kernel.pieces import Tensors, in_pieces
from formers.attention.kernel.weights import Weights, times, weigh

CHUNK = 64  # tokens within which every query meets every key before it
ROOM = 1 << 20  # features of a piece: fewer cost more calls, more leave the cache
NOTHING = -1e4  # the peak of sums over no keys: exp of it is 0
LEAST = 1e-30  # weights that add up to less are lost in the rounding of fp32, and their inverse would overflow


class Sums(NamedTuple):
    """Over the keys so far, in units of exp(peak): products (B, H, F, E), of phi(k) and [v, 1]; weights (B, H), what keys
    came in with. peak (B, H): the highest of any key so far; it stays where features have none."""

    products: Tensor
    weights: Tensor
    peak: Tensor

    @classmethod
    def of_nothing(cls, features: int, v: Tensor) -> "Sums":
        """Over no keys, for values like v (B, H, T, D)."""
        batch, heads, _, width = v.shape
        products = v.new_zeros(batch, heads, features, width + 1, dtype=exact(v))
        return cls(products, products.new_zeros(batch, heads), products.new_full((batch, heads), NOTHING))


class Kind(NamedTuple):
    """The features, and what else is given along the sequence, in this order behind queries, keys and values."""

    features: FeatureLayer
    gated: bool
    masked: bool


def attend_causally(
    features: FeatureLayer, directions: Tensor, qkv: Tensors, before: Sums, real: Tensor | None, gate: Tensor | None
) -> tuple[Tensor, Sums]:
    """Each query over the keys up to its own: (B, H, T, D), and the sums after all of them.

    qkv: (B, H, T, D) each. real: (B, T) bool, False at padding. gate: (B, H, T), logits: at each token the sums keep
    sigmoid(gate) of themselves and take the rest of that token's key.
    """
    others = tuple(t for t in (gate, spread(real, qkv[0])) if t is not None)
    kind = Kind(features, gate is not None, real is not None)
    step = functools.partial(_causal_step, kind)
    out, after = in_pieces(step, piece_of(features, qkv[0]), (directions,), (*qkv, *others), before)
    return out.to(qkv[2].dtype), Sums(*after)


def _causal_step(kind: Kind, shared: Tensors, along: Tensors, handed: Tensors) -> tuple[Tensor, Tensors]:
    length = along[0].shape[2]
    over = length % CHUNK
    if over and length > CHUNK:
        first, handed = _causal_step(kind, shared, tuple(t[:, :, :-over] for t in along), handed)
        last, handed = _causal_step(kind, shared, tuple(t[:, :, -over:] for t in along), handed)
        return torch.cat([first, last], 2), handed
    q, k, v, *others = along
    with exactly(q):
        asked, _ = features_of(kind.features, q, shared[0])
        told, own = features_of(kind.features, k, shared[0])
        gate = others[0].to(told.dtype) if kind.gated else None
        weights = weigh(own, gate, others[-1] if kind.masked else None, handed[2], min(CHUNK, length), told)
        return _chunks(kind.features, (asked, told, with_one(v)), weights, Sums(*handed))


def _chunks(features: FeatureLayer, along: Tensors, weights: Weights, before: Sums) -> tuple[Tensor, Tensors]:
    """Within its chunk each query meets each key before it; of earlier chunks it reads the sums.

    along: features of queries and of keys (B, H, L, F), and values (B, H, L, E).
    """
    chunk = weights.within.shape[-1]
    asked, told, values = (t.unflatten(2, (-1, chunk)) for t in along)
    out, products = scan(asked, told, values, weights, before.products)
    entered = weights.within.sum(-1, keepdim=True).expand(*out.shape[:-1], 1)
    counts = _handed(entered[..., -1, 0], before.weights, weights.over)
    count = times(torch.stack(counts[:-1], 2)[..., None, None], weights.since) + entered
    return divided(features, out, count).flatten(2, 3), (products, counts[-1], weights.peak)


def _handed(added: Tensor, first: Tensor, over: Tensor | None) -> list[Tensor]:
    """The weights (B, H) that each chunk begins with, and those behind the last: `first`, and after each chunk n of added
    (B, H, N) what is left of those before, and added[:, :, n]."""
    counts = [first]
    for n in range(added.shape[2]):
        counts.append((counts[n] if over is None else counts[n] * over[:, :, n]) + added[:, :, n])
    return counts


def divided(features: FeatureLayer, sums: Tensor, count: Tensor) -> Tensor:
    """Values (..., D) of sums (..., E), by the weights that these end in; count (..., 1): what all keys came in with."""
    values, total = sums.split([sums.shape[-1] - 1, 1], -1)
    return values / divisor(features, total, count)


def divisor(features: FeatureLayer, total: Tensor, count: Tensor) -> Tensor:
    """What values are divided by, (..., 1): their weights' total, or the least that it is taken to be."""
    if features.floor is not None:
        total = total.clamp(min=LEAST)
    if features.floor:
        total = torch.maximum(total, features.floor * count)
    return total.masked_fill(total == 0, 1)


def with_one(v: Tensor) -> Tensor:
    """(B, H, L, D) -> (B, H, L, E), in fp32 or better."""
    return F.pad(v.to(exact(v)), (0, 1), value=1)


def features_of(features: FeatureLayer, x: Tensor, directions: Tensor) -> Features:
    """Of queries or keys x. The unit of a query cancels."""
    found: Features = features(x.to(exact(x)), directions.to(exact(x)))
    return found


def exactly(x: Tensor) -> torch.autocast:
    """A context in which products are as precise as what goes into them."""
    return torch.autocast(x.device.type, enabled=False)


def exact(x: Tensor) -> torch.dtype:
    """The precision that sums are kept in."""
    return torch.promote_types(x.dtype, torch.float32)


def spread(real: Tensor | None, like: Tensor) -> Tensor | None:
    """(B, T) for each head, (B, H, T)."""
    return None if real is None else real[:, None].expand(-1, like.shape[1], -1)


def piece_of(features: FeatureLayer, x: Tensor) -> int:
    """Tokens of a piece for queries or keys x (B, H, T, D)."""
    each = x.shape[0] * x.shape[1] * features.count
    return max(1, ROOM // each // CHUNK) * CHUNK
