"""Routing: queries and keys gather around centroids, and those of one cluster meet."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from formers.attention.buckets import by_bucket, same_bucket
from formers.attention.centroids import Centroids, on_sphere
from formers.attention.clusters import ClusterPlan
from formers.attention.plan import Plan
from formers.attention.select import EVERY, Chosen, Noted, Selector, SelectorRule
from formers.attention.sorted.plan import Rules, SortedPlan
from formers.call import Call
from formers.places import Places
from formers.spec.core import Site
from formers.state import Log

CHUNK = 64  # tokens of a chunk, where clusters are worked on in sorted order


class Routing(Selector):
    """Tokens of one cluster meet: Routing Transformer, Roy et al. 2020, arXiv:2003.05997. Queries and keys, layer-normed
    without scale and bias, are compared by dot product with `clusters` centroids of each head. Use it in one half of
    the heads, beside local ones in the other: `Parallel`.

    Strict, unless `balanced`: a token belongs to its nearest centroid, and meets the `window` latest tokens of its
    cluster, itself included; in an encoder, those less than `window` further on either side. Nothing depends on later
    tokens, and decoding equals one pass. What that costs: nothing keeps clusters alike in size. Of a large one only the
    latest members are met, and in a small one there are fewer than `window` of them. The record below tells.

    balanced: the published selection. Each centroid takes the `window` tokens of the whole sequence that suit it best,
    window=None: tokens / clusters, rounded up. They attend to one another; a token in several clusters gets the mean of
    their outputs, over those in which it sees anything, and one in none gets 0. For encoders: in a decoder later tokens
    decide which earlier ones meet, and a step of decoding equals a pass over the tokens so far, not over all.
    joint: queries and keys are clustered as one, which wants projection=SharedQK(), position=SelfLast(), scale=1.0;
    False, in a balanced selection alone: each centroid takes its queries and its keys apart.

    The centroids learn while a `formers.train` run trains: they follow, by moving averages that keep `decay` of
    themselves in each update, the mean of their tokens; one that has had hardly any for ten updates takes half of a
    large cluster. They are buffers, in every checkpoint; no call changes them.
    commitment: weight of the loss "commitment", the mean squared distance of a token to its centroid, which draws
    queries and keys to it. The record "clusters <path>" says how many tokens each centroid had, in its last column.

    Padding belongs to no cluster. The choice has no gradient.
    Differs from the paper: scores are made of queries and keys as they are, not as normed for the choice; the
    centroids, means of tokens and thus shorter than these, are compared by their directions; and idle ones are put to
    work, without which all tokens of a layer came to be in one cluster within 50 updates of the copy task.
    """

    clusters: int
    window: int | None = None
    balanced: bool = False
    joint: bool = True
    decay: float = 0.999
    commitment: float = 1e-4

    @property
    def prefix_stable(self) -> bool:
        return not self.balanced

    @property
    def stable_form(self) -> Selector | None:
        return self.replace(balanced=False, window=self.window or 128) if self.joint else None

    @property
    def of_keys(self) -> bool:
        return self.joint

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.clusters < 1:
            yield f"{self.clusters} clusters hold nothing", "clusters=16"
        if self.window is not None and self.window < 1:
            yield (
                f"a window of {self.window} tokens of a cluster shows nothing, not even the token itself",
                "window=128",
            )
        if self.window is None and not self.balanced:
            yield "how far a token looks back in its cluster must not depend on the length", "window=128"
        if not self.joint and not self.balanced:
            yield "a token and its key belong to one cluster, unless the selection is balanced", "joint=True"
        if not 0 <= self.decay < 1:
            yield f"moving averages keep a share from 0 to below 1 of themselves, not {self.decay}", "decay=0.999"
        if self.commitment < 0:
            yield f"commitment={self.commitment} would drive tokens away from their centroids", "commitment=1e-4"

    def build(self, site: Site) -> SelectorRule:
        return BalancedRule(self, site) if self.balanced else StrictRule(self, site)


class RoutingRule(SelectorRule):
    """What both forms share: centroids, and what they are to learn."""

    def __init__(self, spec: Routing, site: Site) -> None:
        super().__init__()
        self.spec, self.causal = spec, site.causal
        self.centroids = Centroids(spec.clusters, spec.decay, site)

    def _noted(self, x: Tensor, nearest: Tensor, real: Tensor | None, heads: slice) -> Noted:
        """For vectors x (B, H, T, D) and their centroids (B, H, T)."""
        near = self.centroids
        tally = near.tally(on_sphere(x), nearest, real)
        losses = {}
        if self.spec.commitment:
            losses["commitment"] = self.spec.commitment * near.distance(tally, heads)
        return Noted(losses, {near.lesson: (near.lesson_of(tally, heads),)})


class StrictRule(RoutingRule):
    def __init__(self, spec: Routing, site: Site) -> None:
        super().__init__(spec, site)
        window = spec.window or 1
        chunk = min(window, CHUNK)
        before = -(-(window - 1) // chunk)
        self.rules = Rules(chunk, before, 0 if site.causal else before, reach=window, same=True)

    @torch.no_grad()
    def choose(
        self, q: Tensor, k: Tensor, call: Call, to: Places, past: Log | None = None, heads: slice = EVERY
    ) -> Chosen:
        """The cluster (B, H, 1, S), int32, of every token; the state is a log of the same."""
        new = call.at.length
        nearest = self.centroids.nearest(on_sphere(k[:, :, k.shape[2] - new :]), heads)[..., None]
        log = Log(nearest) if past is None else past.last(to.length - new).extend(nearest)
        return Chosen(log.view.mT, log if call.remember else None)

    def plan(self, choices: Tensor, at: Places, to: Places) -> Plan | SortedPlan:
        return by_bucket(choices, at, to, self.rules, same_bucket, self.rules.reach)

    def note(self, q: Tensor, k: Tensor, choices: Tensor, call: Call, heads: slice = EVERY) -> Noted:
        return self._noted(q, choices[:, :, 0, -q.shape[2] :], call.at.real, heads)


class Members(NamedTuple):
    """Balanced choices: queries and keys (B, H, C, w), int64, the tokens of each cluster in the order of the sequence, of
    all that this call meets; -1 is nothing. keys: None where they are the queries. nearest: (B, H, T or 2 T) the centroid
    of each query of this call, and then of each key, unless they are one; None where nothing is learned."""

    queries: Tensor
    keys: Tensor | None
    nearest: Tensor | None


class BalancedRule(RoutingRule):
    @torch.no_grad()
    def choose(
        self, q: Tensor, k: Tensor, call: Call, to: Places, past: Log | None = None, heads: slice = EVERY
    ) -> Chosen:
        """`Members`; the state is a log of all queries, unless they are the keys."""
        near, new, log = self.centroids, q.shape[2], None
        if not self.spec.joint:
            log = Log(q) if past is None else past.last(to.length - new).extend(q)
        sides = [on_sphere(side) for side in ([k] if log is None else [log.view, k])]
        taken = [self._taken(near.similarity(side, heads), to.real) for side in sides]
        nearest = None
        if self.training:
            nearest = torch.cat([near.nearest(side[:, :, side.shape[2] - new :], heads) for side in sides], 2)
        choices = Members(taken[0], None if log is None else taken[1], nearest)
        return Chosen(choices, log if call.remember else None)

    def plan(self, choices: Members, at: Places, to: Places) -> ClusterPlan:
        earlier = to.length - at.length
        if not earlier:
            return ClusterPlan(choices.queries, choices.keys)
        keys = choices.queries if choices.keys is None else choices.keys
        return ClusterPlan((choices.queries - earlier).clamp(min=-1), keys)

    def note(self, q: Tensor, k: Tensor, choices: Members, call: Call, heads: slice = EVERY) -> Noted:
        if choices.nearest is None:
            return Noted()
        if self.spec.joint:
            return self._noted(q, choices.nearest, call.at.real, heads)
        both = torch.cat([q, k[:, :, -q.shape[2] :]], 2)
        real = None if call.at.real is None else call.at.real.repeat(1, 2)
        return self._noted(both, choices.nearest, real, heads)

    def _taken(self, products: Tensor, real: Tensor | None) -> Tensor:
        """The best tokens (B, H, C, w) by their products (B, H, C, S) with each centroid, in order; -1 for none."""
        length = products.shape[-1]
        if real is None:
            return first_best(products, min(length, self._window(length))).sort(-1).values
        windows = [min(held, self._window(held)) for held in real.sum(1).tolist()]
        products, widest = products.masked_fill(~real[:, None, None], float("-inf")), max(1, *windows)
        rows = [first_best(row, window).sort(-1).values for row, window in zip(products, windows, strict=True)]
        return torch.stack([F.pad(row, (0, widest - row.shape[-1]), value=-1) for row in rows])

    def _window(self, length: int) -> int:
        """How many tokens a centroid takes of so many."""
        return self.spec.window or -(-length // self.spec.clusters)


def first_best(of: Tensor, count: int) -> Tensor:
    """Where the `count` largest of (..., S) stand, (..., count), the largest first; of equals, the first."""
    best, where = of.topk(min(count + 1, of.shape[-1]), -1)
    if best.shape[-1] > count > 0:
        tied = best[..., count] == best[..., count - 1]
        if tied.any():  # the last that goes in equals the first that stays out
            where[tied] = of[tied].sort(dim=-1, descending=True, stable=True).indices[:, : count + 1]
    return where[..., :count]
