"""Plans of sorted chunks: tokens are put in order of a bucket, several times over; a chunk of them meets its neighbours.

One kind of plan serves what is local in an order that content gives: hashing (LSH) and clusters (routing).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from formers import native
from formers.attention.plan import Plan, Tiles


class Rules(NamedTuple):
    """Which pairs of a round meet, beyond what the pattern shows.

    chunk: tokens in a chunk. before, after: a query's chunk meets so many on either side. wrap: the chunk before the
    first of a round is the last of the round before, cyclically, as in trax; otherwise there is none.
    reach: only pairs less than so many slots apart meet; 0: no such rule. same: only pairs of one bucket meet.
    once: a pair that met in an earlier round does not meet again.
    """

    chunk: int
    before: int = 1
    after: int = 0
    wrap: bool = False
    reach: int = 0
    same: bool = False
    once: bool = True


@dataclass(frozen=True)
class SortedPlan:
    """Rounds of sorted chunks over the tokens of one call, which are its queries and its keys.

    order: (1 or B, 1 or H, R, S) int32, the token in each slot of a round. slot: alike, the slot of each token.
    bucket: alike, the bucket of each token, where the rules ask for it.
    """

    order: Tensor
    slot: Tensor
    bucket: Tensor
    rules: Rules

    @property
    def pairs(self) -> int:
        """How many scores are computed, for each row of the batch and each head."""
        rounds, length = self.order.shape[2:]
        chunk, wide = self.rules.chunk, 1 + self.rules.before + self.rules.after
        return rounds * -(-length // chunk) * chunk * chunk * wide

    def tiles(self) -> Plan:
        """The same pairs as indexed tiles, for parts that only the tile executor can run."""
        return Plan(tuple(self._tiles(r) for r in range(self.order.shape[2])))

    def _tiles(self, r: int) -> Tiles:
        rows, columns = self.window(r)
        met = self.meets(r, rows, columns)
        return Tiles(rows, columns, met)

    def window(self, r: int) -> tuple[Tensor, Tensor]:
        """The tokens of each chunk of a round (.., N, c), and those that it meets (.., N, C); -1 is nothing."""
        rules, rounds = self.rules, self.order.shape[2]
        own = _chunks(self.order[:, :, r].long(), rules.chunk)
        earlier = _chunks(self.order[:, :, (r - 1) % rounds].long(), rules.chunk)[..., own.shape[2] - rules.before :, :]
        later = _chunks(self.order[:, :, (r + 1) % rounds].long(), rules.chunk)[..., : rules.after, :]
        short = (max(0, rules.before - own.shape[2]), max(0, rules.after - own.shape[2]))
        if not rules.wrap:
            earlier, later = torch.full_like(earlier, -1), torch.full_like(later, -1)
        earlier, later = F.pad(earlier, (0, 0, short[0], 0), value=-1), F.pad(later, (0, 0, 0, short[1]), value=-1)
        joined = torch.cat([earlier, own, later], 2)
        return own, joined.unfold(2, 1 + rules.before + rules.after, 1).transpose(-1, -2).flatten(-2)

    def meets(self, r: int, rows: Tensor, columns: Tensor) -> Tensor:
        """Which pairs of tokens in the tiles of a round do meet there: (.., N, R, C) bool."""
        met = self._near(r, rows, columns)
        if self.rules.once:
            for earlier in range(r):
                met = met & ~(self._near(earlier, rows, columns) & self._neighbours(earlier, rows, columns))
        return met

    def _near(self, r: int, rows: Tensor, columns: Tensor) -> Tensor:
        rules = self.rules
        met = torch.ones((*rows.shape, columns.shape[-1]), dtype=torch.bool, device=rows.device)
        if rules.reach:
            met = met & ((_at(self.slot, r, rows) - _at(self.slot, r, columns).mT).abs() < rules.reach)
        if rules.same:
            met = met & (_at(self.bucket, r, rows) == _at(self.bucket, r, columns).mT)
        return met

    def _neighbours(self, r: int, rows: Tensor, columns: Tensor) -> Tensor:
        """Do their chunks meet?"""
        chunk = self.slot // self.rules.chunk
        back = _at(chunk, r, rows) - _at(chunk, r, columns).mT
        return (back <= self.rules.before) & (back >= -self.rules.after)


def sort_by(bucket: Tensor, rules: Rules) -> SortedPlan:
    """The plan in which tokens stand by bucket (.., R, S), and within one in the order of the sequence."""
    bucket = bucket.int()
    if native.refuses_order(bucket) is None:
        return SortedPlan(*native.in_order(bucket), bucket, rules)
    order = bucket.argsort(stable=True, dim=-1)
    slot = torch.empty_like(order).scatter_(
        -1, order, torch.arange(bucket.shape[-1], device=order.device).expand_as(order)
    )
    return SortedPlan(order.int(), slot.int(), bucket, rules)


def _chunks(order: Tensor, chunk: int) -> Tensor:
    """(.., S) -> (.., N, chunk), with -1 behind the last token."""
    return F.pad(order, (0, -order.shape[-1] % chunk), value=-1).unflatten(-1, (-1, chunk))


def _at(of: Tensor, r: int, index: Tensor) -> Tensor:
    """Round r of (.., R, S) at tokens (.., N, n): (.., N, n, 1); nothing (-1) reads token 0."""
    batch, heads = (max(a, b) for a, b in zip(of.shape[:2], index.shape[:2], strict=True))
    flat = index.clamp(min=0).expand(batch, heads, *index.shape[2:]).flatten(2)
    return of[:, :, r].expand(batch, heads, -1).gather(2, flat).unflatten(2, index.shape[2:])[..., None]
