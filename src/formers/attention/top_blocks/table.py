"""Which token stands where: positions in blocks, and the queries that chose each block."""

from typing import NamedTuple

import torch
from torch import Tensor

from formers.places import Places


def block_of(places: Places, block: int) -> Tensor:
    """(1 or B, T): the block of positions that each token falls into."""
    return torch.div(places.pos, block, rounding_mode="floor")


def block_table(to: Places, block: int) -> Tensor:
    """(1 or B, N, block): which token stands at each position of each block, from block 0 on; -1 where none does.

    Positions of a row's real tokens differ from one another.
    """
    count = max(to.bounds[1] // block + 1, 1)
    token = torch.arange(max(count * block, to.length), device=to.device)
    if to.start is not None:
        slots = token[: count * block] - to.start
        slots = torch.where((slots >= 0) & (slots < to.length), slots, -1)[None]
    else:
        cell = to.pos
        if to.real is not None:  # padding is written behind the last block, and cut off
            cell = torch.where(to.real, cell, count * block)
        slots = cell.new_full((cell.shape[0], count * block + 1), -1)
        slots = slots.scatter(1, cell, token[: to.length].expand_as(cell))[:, :-1]
    return slots.unflatten(1, (count, block))


def members(table: Tensor, blocks: Tensor) -> Tensor:
    """The tokens (B, ..., block) of blocks (B, ...) in a table (1 or B, N, block); -1 for blocks that are not in it."""
    known = (blocks >= 0) & (blocks < table.shape[1])
    row = torch.arange(table.shape[0], device=blocks.device).view(-1, *[1] * (blocks.ndim - 1))
    return torch.where(known[..., None], table[row, torch.where(known, blocks, 0)], -1)


class Callers(NamedTuple):
    """Queries by the block that each chose. queries: (B, H, N, R), those of a tile chose the same block, -1 behind the last.
    blocks: (B, H, N), which one; that behind the last of all for tiles of nobody."""

    queries: Tensor
    blocks: Tensor


def callers(chosen: Tensor, count: int, size: int) -> Callers | None:
    """The queries that chose one block each of `count`, (B, H, T), -1 for none, in tiles of `size`; None where nobody did."""
    block = torch.where((chosen >= 0) & (chosen < count), chosen, count).long()
    block, query = block.sort(dim=-1, stable=True)
    held = torch.zeros(*block.shape[:2], count + 1, dtype=torch.int64, device=block.device)
    held = held.scatter_add(-1, block, torch.ones_like(block))
    tiles = torch.div(held + size - 1, size, rounding_mode="floor")
    tiles[..., count] = 0
    ends = tiles.cumsum(-1)
    total = int(ends[..., -1].max())
    if total == 0:
        return None
    # the cell of a query: after the cells of all tiles of earlier blocks, and the earlier queries of its own block
    shift = (ends - tiles) * size - (held.cumsum(-1) - held)
    cell = torch.arange(block.shape[-1], device=block.device) + shift.gather(-1, block)
    cell = torch.where(block < count, cell, total * size)
    cells = cell.new_full((*block.shape[:2], total * size + 1), -1).scatter(-1, cell, query)
    tile = torch.arange(total, device=block.device).expand(*block.shape[:2], -1).contiguous()
    blocks = torch.searchsorted(ends[..., :count].contiguous(), tile, right=True)
    return Callers(cells[..., :-1].unflatten(-1, (total, size)), blocks)
