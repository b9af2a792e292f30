"""Blocks of keys chosen by content: each query meets its own block and the few others whose mean key suits it best."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from formers.attention.select import EVERY, Chosen, Selector, SelectorRule
from formers.attention.top_blocks.plan import BlocksPlan
from formers.attention.top_blocks.table import block_of
from formers.call import Call
from formers.places import Places
from formers.spec.core import Site

PIECE = 2**20  # so many scores of blocks are held at a time


class TopBlocks(Selector):
    """A query meets its own block of positions and `count` others, those whose mean key has the largest product with
    it. The choice of MoBA (Lu et al. 2025, arXiv:2502.13189); trained through the attention alone, as the selected
    branch of NSA is (Yuan et al. 2025, arXiv:2502.11089).

    block: positions in a block; padding does not count. count: blocks beside the own one; where fewer may be chosen,
    all are. In a decoder only blocks before the query's own may be, so that every position of theirs is known: later
    tokens change no choice, and decoding equals one pass. In an encoder blocks on both sides may be. Equal products go
    to the earlier block. Each head chooses for itself; no gradient flows through the choice.

    The pattern still decides what is visible: under a window, a block further back may be chosen, and shows nothing.
    Work of T queries: T * (count + 1) * block pairs, and T^2 / block (in a decoder half of that) to choose.

    Differs from the papers: the own block is beside the `count` and not one of them (MoBA's top-k of 3 is count=2);
    NSA's compressed and sliding branches, its gates, and its one choice for all heads of a group are not here.
    """

    block: int = 64
    count: int = 4

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.block < 1:
            yield f"blocks of {self.block} positions hold nothing", "block=64"
        if self.count < 1:
            yield f"{self.count} blocks beside the query's own leave nothing to choose", "count=4"

    @property
    def prefix_stable(self) -> bool:
        return True

    def build(self, site: Site) -> SelectorRule:
        return TopBlocksRule(self, site)


class BlockSums(NamedTuple):
    """What the next call is given: the sum of each block's keys (B, H, N, D), and of how many real tokens (B, N)."""

    sums: Tensor
    held: Tensor


class TopBlocksRule(SelectorRule):
    def __init__(self, spec: TopBlocks, site: Site) -> None:
        super().__init__()
        self.spec, self.causal = spec, site.causal

    @torch.no_grad()
    def choose(
        self, q: Tensor, k: Tensor, call: Call, to: Places, past: BlockSums | None = None, heads: slice = EVERY
    ) -> Chosen:
        """Chosen blocks (B, H, T, up to count), int32, the best first: position // block; -1 for none."""
        known = self._sums(k, to, None) if past is None else self._sums(k[:, :, -call.at.length :], call.at, past)
        means = known.sums / known.held.clamp(min=1)[:, None, :, None]
        own, held, count = block_of(call.at, self.spec.block), known.held > 0, means.shape[2]
        width = min(self.spec.count, count - 1)
        step = max(1, PIECE // (means.shape[0] * means.shape[1] * count))
        chosen = []
        for start in range(0, q.shape[2], step):
            part, mine = q[:, :, start : start + step], own[:, start : start + step]
            reached = max(int(mine.max()), 1) if self.causal else count
            chosen.append(self._best(part, means[:, :, :reached], mine, held[:, :reached], width))
        choices = torch.cat(chosen, 2)
        if call.at.real is not None:
            choices = choices.masked_fill(~call.at.real[:, None, :, None], -1)
        return Chosen(choices, known if call.remember else None)

    def plan(self, choices: Tensor, at: Places, to: Places) -> BlocksPlan:
        return BlocksPlan(choices, self.spec.block, at, to)

    def _sums(self, k: Tensor, places: Places, past: BlockSums | None) -> BlockSums:
        """What was known, and the keys (B, H, T, D) of these places beside it, in float32 or better."""
        block, kind = self.spec.block, torch.promote_types(k.dtype, torch.float32)
        count = max(places.bounds[1] // block + 1, 1 if past is None else past.held.shape[1])
        if past is None and places.start == 0:
            whole = places.length // block
            parts = [k[:, :, : whole * block].unflatten(2, (whole, block)).sum(3, dtype=kind)]
            if whole < count:
                parts.append(k[:, :, whole * block :].sum(2, keepdim=True, dtype=kind))
            held = (places.length - block * torch.arange(count, device=k.device)).clamp(max=block)
            return BlockSums(torch.cat(parts, 2), held.expand(k.shape[0], -1))
        of = block_of(places, block).clamp(max=count - 1).expand(k.shape[0], -1)
        one, k = torch.ones_like(of), k.to(kind)
        if places.real is not None:
            one, k = one * places.real, k.masked_fill(~places.real[:, None, :, None], 0)
        if past is None:
            sums, held = k.new_zeros(*k.shape[:2], count, k.shape[3]), one.new_zeros(k.shape[0], count)
        else:
            more = count - past.held.shape[1]
            sums, held = F.pad(past.sums, (0, 0, 0, more)), F.pad(past.held, (0, more))
        return BlockSums(sums.scatter_add(2, of[:, None, :, None].expand_as(k), k), held.scatter_add(1, of, one))

    def _best(self, q: Tensor, means: Tensor, own: Tensor, held: Tensor, width: int) -> Tensor:
        """Among the blocks (B, H, N, D) that hold something and may be chosen, the `width` best: (B, H, T, width)."""
        number = torch.arange(held.shape[1], device=held.device)
        free = number < own[..., None] if self.causal else number != own[..., None]
        with torch.autocast(q.device.type, enabled=False):
            scores = q.to(means.dtype) @ means.mT
        scores.masked_fill_(~(free & held[:, None])[:, None], float("-inf"))
        best, chosen = scores.topk(min(width + 1, held.shape[1]), -1)
        if best.shape[-1] > width > 0:
            tied = (best[..., width] == best[..., width - 1]) & (best[..., width] > float("-inf"))
            if tied.any():  # the last that goes in equals the first that stays out: the earlier block has it
                chosen[tied] = scores[tied].sort(dim=-1, descending=True, stable=True).indices[:, : width + 1]
        chosen = torch.where(best > float("-inf"), chosen, -1).int()[..., :width]
        return F.pad(chosen, (0, width - chosen.shape[-1]), value=-1)
