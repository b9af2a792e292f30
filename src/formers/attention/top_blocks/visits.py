"""Chosen blocks for the executor of visits: one view of the own blocks, and one of each further block that a query chose."""

import torch
from torch import Tensor
from torch.nn import functional as F

from formers.attention.pattern import Blocks, Causal, Pattern
from formers.attention.top_blocks.plan import BlocksPlan
from formers.attention.top_blocks.table import block_of, block_table, callers
from formers.attention.visits.table import Visits, plan_visits
from formers.native.visits import BLOCK, Table, View


@torch.compiler.disable  # it looks at numbers, and a compiled model takes the plan as it comes
def visits_of(plan: BlocksPlan, pattern: Pattern) -> Visits:
    """What every row and head visits, under a pattern that shows all or all of the past.

    A view has each query once, and beside those that chose the same block; all of them see all of it.
    """
    batch, heads = plan.choices.shape[:2]
    own = plan_visits(pattern & Blocks(plan.block), plan.at, plan.to, heads)
    plans = [list(own.table.plans[number]) for number in own.table.which.expand(batch, heads).flatten().tolist()]
    keys, seen = _Keys(plan), plan.choices
    if type(pattern) is Causal:  # of the own block all is met already, and later ones show nothing
        seen = torch.where(seen < block_of(plan.at, plan.block)[:, None, :, None], seen, -1)
    for chosen in seen.sort(-1).values.unbind(-1):  # in order, the queries of a view chose fewer different blocks
        for number, view in enumerate(keys.views(chosen)):
            plans[number].append(view)
    return Visits(Table(plans, torch.arange(batch * heads).view(batch, heads), True, own.table.places), own.real)


class _Keys:
    """The keys of each block of positions, in blocks of the executor's size: as many as hold them, the tokens first."""

    def __init__(self, plan: BlocksPlan) -> None:
        table = block_table(plan.to, plan.block)
        table = table.gather(-1, (table < 0).byte().argsort(dim=-1, stable=True))
        self.parts = -(-plan.block // BLOCK)  # of a block of positions
        padded = F.pad(table, (0, self.parts * BLOCK - plan.block), value=-1)
        self.blocks = padded.unflatten(-1, (self.parts, BLOCK)).flatten(1, 2).int()
        self.count = table.shape[1]
        held = (table >= 0).sum(-1)
        self._filled = F.pad(torch.div(held + BLOCK - 1, BLOCK, rounding_mode="floor"), (0, 1))  # of each, and of none

    def views(self, chosen: Tensor) -> list[View]:
        """Of each row and head, for the one block that each query chose, (B, H, T); none where no query did."""
        found = callers(chosen, self.count, BLOCK)
        if found is None:
            return []
        queries, blocks = found.queries.int().flatten(0, 1), found.blocks.flatten(0, 1)
        row = (torch.arange(len(blocks)) // chosen.shape[1]).clamp(max=len(self.blocks) - 1)
        filled = self._filled[row[:, None], blocks]
        first = F.pad(filled.cumsum(-1), (1, 0)).int()
        part = torch.arange(self.parts)
        visited = (blocks[..., None] * self.parts + part).int()
        met = part < filled[..., None]
        whole = torch.full((int(first.max()),), -1, dtype=torch.int32)
        no_masks = torch.empty(0, BLOCK, dtype=torch.int64)
        return [
            View(queries[n], self.blocks[row[n]], first[n], visited[n][met[n]], whole, no_masks)
            for n in range(len(queries))
        ]
