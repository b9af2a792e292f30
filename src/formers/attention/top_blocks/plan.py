"""The plan of queries that meet their own block of positions and others that they have chosen."""

from dataclasses import dataclass

import torch
from torch import Tensor

from formers.attention.plan import Plan, Tiles
from formers.attention.top_blocks.table import block_of, block_table, callers, members
from formers.places import Places

ROWS = 32  # queries of a tile: they have chosen the same block
FEW = 8  # up to this many queries, a tile for each is faster than sorting them by block


@dataclass(frozen=True)
class BlocksPlan:
    """Queries at `at` meet the keys at `to` that stand in their own block of positions, and in those of choices
    (B, H, T, count): position // block, each once and not the own one; -1 for none."""

    choices: Tensor
    block: int
    at: Places
    to: Places

    @property
    def few(self) -> bool:
        """So few queries that each has a tile of its own."""
        return self.at.length <= FEW

    def tiles(self) -> Plan:
        """A tile for each of a few queries; of many, the own blocks, and for each rank the queries sorted by block."""
        table = block_table(self.to, self.block)
        if self.few:
            own = block_of(self.at, self.block)[:, None, :, None].expand(*self.choices.shape[:3], 1)
            keys = members(table, torch.cat([own, self.choices], -1)).flatten(-2)
            rows = torch.arange(self.at.length, device=keys.device)[None, None, :, None]
            return Plan((Tiles(rows, keys),), disjoint=True)
        first, last = (end // self.block for end in self.at.bounds)
        theirs = slice(first, last + 1)
        groups = [Tiles(block_table(self.at, self.block)[:, None, theirs], table[:, None, theirs])]
        for chosen in self.choices.unbind(-1):
            found = callers(chosen, table.shape[1], ROWS)
            if found is not None:
                groups.append(Tiles(found.queries, members(table, found.blocks)))
        return Plan(tuple(groups))
