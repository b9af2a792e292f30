"""Attention that meets as many tokens as its rivals do and chooses without a look: what a choice by content is held against."""

from typing import Any

import torch
from torch import Tensor

from formers.attention.routing import Routing, StrictRule
from formers.attention.select import EVERY, Chosen, Noted, SelectorRule
from formers.attention.top_blocks.rule import TopBlocks, TopBlocksRule
from formers.call import Call
from formers.places import Places
from formers.spec.core import Site


class RandomClusters(Routing):
    """Strict routing whose tokens fall into clusters at random, by the seed of the call, alike in every row."""

    def build(self, site: Site) -> SelectorRule:
        return RandomClustersRule(self, site)


class RandomClustersRule(StrictRule):
    def __init__(self, spec: RandomClusters, site: Site) -> None:
        super().__init__(spec, site)
        self.path = site.path

    def choose(self, q: Tensor, k: Tensor, call: Call, to: Places, past: Any = None, heads: slice = EVERY) -> Chosen:
        shape = 1, k.shape[1], 1, to.length
        drawn = torch.randint(self.spec.clusters, shape, generator=call.chance(self.path), dtype=torch.int32)
        return Chosen(drawn.expand(k.shape[0], -1, -1, -1))

    def note(self, q: Tensor, k: Tensor, choices: Tensor, call: Call, heads: slice = EVERY) -> Noted:
        """Nothing: no centroid is to learn."""
        return Noted()


class BlocksAtRandom(TopBlocks):
    """A block meets itself and `count` earlier ones that are drawn by the seed of the call, alike in every row."""

    def build(self, site: Site) -> SelectorRule:
        return BlocksAtRandomRule(self, site)


class BlocksAtRandomRule(TopBlocksRule):
    def __init__(self, spec: BlocksAtRandom, site: Site) -> None:
        super().__init__(spec, site)
        self.path = site.path

    def choose(self, q: Tensor, k: Tensor, call: Call, to: Places, past: Any = None, heads: slice = EVERY) -> Chosen:
        own = torch.arange(to.length) // self.spec.block
        count = int(own[-1]) + 1
        drawn = torch.rand(1, k.shape[1], count, count, generator=call.chance(self.path))
        earlier = torch.ones(count, count, dtype=torch.bool).tril(-1)
        best = drawn.masked_fill(~earlier, -1).topk(min(self.spec.count, count - 1))
        chosen = torch.where(best.values >= 0, best.indices, -1).int()[:, :, own]
        return Chosen(chosen.expand(k.shape[0], -1, -1, -1))
