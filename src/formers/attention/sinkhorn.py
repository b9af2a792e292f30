"""Attention to one's own block and to a block that is sorted to it."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from formers.attention.grid import Grid
from formers.attention.layer import head_problems, heads_inside
from formers.attention.mixing import mix
from formers.attention.project import Dense, Projection
from formers.attention.sinkhorn_causal import CausalSinkhornLayer
from formers.attention.sinkhorn_layer import SortedAttention, grid_of
from formers.attention.sorting import pair_noise, sinkhorn
from formers.call import Call, Layer, Out
from formers.residual import dropout_problems
from formers.spec.core import Site


class SinkhornAttention(Layer):
    """Sparse Sinkhorn attention. Tay et al. 2020, arXiv:2002.11296.

    A small network scores every pair of blocks, Sinkhorn's iterations make of the scores a soft permutation, and each
    block attends, by one softmax, to itself and to the block that is sorted to it: token by token a weighted mean of
    other blocks, keys and values by the same weights. Costs O(T block + (T / block)^2 head_dim block) for T tokens.

    heads, head_dim: as of attention. block: tokens in a block. iterations: of Sinkhorn's algorithm. temperature: divides
    the scores; the lower, the nearer to a permutation. noise: scale of the Gumbel noise that is added to the scores
    before, while training; drawn from the call's seed, so give every step another. cut: SortCut, every query attends
    to the first `cut` sorted blocks alone; for encoders. dropout: rate at which attention weights are dropped.

    In a decoder a block's sorted copy is made of earlier blocks only (the first has none), scores are known from a
    block's first token on, and a column is normalised over the rows so far; decoding step by step equals one pass.
    Where every block is used up once, the only block that no earlier one has taken is the one before: with many
    iterations the causal form becomes attention to the previous block, and few keep more of the choice by content.

    Differs from the paper: the network's last layer has an output for each block there, which limits the length; here
    it scores what a block seeks against what another offers, so any length runs. Sums of token vectors are divided by
    the root of their number. No block is sorted to itself (except under `cut`, where nothing else would show it). The
    causal form ends with rows normalised, since columns summed over the past alone leave rows of a weight above 1.
    """

    heads: int
    head_dim: int | None = None
    block: int = 64
    iterations: int = 8
    temperature: float = 0.75
    noise: float = 1.0
    cut: int | None = None
    projection: Projection = Dense()
    dropout: float = 0.0

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from head_problems(self.heads, None, self.head_dim, site)
        yield from dropout_problems(self.dropout)
        if self.block < 1:
            yield f"a block must hold a token or more, got {self.block}", "block=64"
        if self.iterations < 1:
            yield f"without an iteration nothing is sorted, got {self.iterations}", "iterations=8"
        if not self.temperature > 0:
            yield (
                f"scores are divided by the temperature, which must be positive, got {self.temperature}",
                ("temperature=0.75"),
            )
        if not self.noise >= 0:
            yield f"noise is a scale and must not be negative, got {self.noise}", "noise=0.0"
        if self.cut is not None and self.cut < 1:
            yield f"cut={self.cut} leaves no sorted block to attend to", "cut=2"
        elif self.cut is not None and site.causal:
            yield "cut shows every query the same sorted blocks, and a decoder must not see the future", "cut=None"
        if not self.projection.within or self.projection.output_looks_back:
            yield f"sorted attention does not keep what {self.projection!r} must remember", "projection=Dense()"
        if site.streaming and not site.causal:
            yield "two-sided sorting looks at the whole sequence and cannot be continued", "build(streaming=False)"

    def inside(self, site: Site) -> Site:
        return heads_inside(site, self.heads, None, self.head_dim)

    def build(self, site: Site) -> nn.Module:
        return CausalSinkhornLayer(self, site) if site.causal else SinkhornLayer(self, site)


class SinkhornLayer(SortedAttention):
    """The two-sided form."""

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        block, prepared = self.spec.block, self.projection.prepare(x, call.at, None)[0]
        grid = grid_of(call, call.at, block)
        k, v = (t.transpose(1, 2) for t in self.projection.keys_values(prepared))
        k, v = grid.window(k), grid.window(v)
        real = self._real(grid)
        matrix = self._matrix(grid.fresh(x), real, call)
        far, weight = self._mixed(matrix, (k, v), real)
        q = self.projection.queries(prepared).transpose(1, 2)
        if self.spec.cut is None:
            return Out(self.output(self._near(grid, q, far, (k, v), weight, real)))
        return Out(self.output(self._cut(q, far, weight)))

    def _mixed(
        self, matrix: Tensor, own: tuple[Tensor, Tensor], real: Tensor | None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Sorted keys and values (B, W, b, H, D), and what is added to their scores (B, H, W, b); None: nothing.

        A slot is the mean of the tokens mixed there: padding takes part only by lowering the slot's weight.
        """
        block = self.spec.block
        far = [mix(matrix, t, block) for t in own]
        if real is None and (self.spec.cut is not None or matrix.shape[-1] > 1):
            return far, None
        share = shares(matrix, real, block)
        share, nothing = share.masked_fill(share == 0, 1), share == 0
        per_slot = share.permute(0, 2, 3, 1)[..., None].to(far[0].dtype)
        return [t / per_slot for t in far], share.log().masked_fill(nothing, float("-inf"))

    def _real(self, grid: Grid) -> Tensor | None:
        """(B or 1, N * b): where there are tokens; None: everywhere."""
        count = grid.blocks * self.spec.block
        if grid.run and grid.to.length == count:
            return None
        return torch.arange(count, device=grid.total.device) < grid.total[:, None]

    def _matrix(self, x: Tensor, real: Tensor | None, call: Call) -> Tensor:
        """The soft permutation (B, H, N, N); under a cut, only the rows that it leaves."""
        spec, block = self.spec, self.spec.block
        sums, blocks = x.unflatten(1, (-1, block)).sum(2), x.shape[1] // block
        counts = x.new_full((1, blocks), block) if real is None else real.unflatten(1, (-1, block)).sum(2)
        means = sums / counts.clamp(min=1).to(x.dtype).sqrt()[..., None]
        scores = self.network(means, means)
        if self.noisy:
            noise = pair_noise(blocks, call.chance(self.path), scores)
            scores = scores + spec.noise * noise
        held = counts > 0
        allowed = held[:, None, :, None] & held[:, None, None, :]
        if spec.cut is None:
            allowed = allowed & ~torch.eye(blocks, dtype=torch.bool, device=x.device)
        return sinkhorn(scores / spec.temperature, spec.iterations, allowed)[:, :, : spec.cut]

    def _near(
        self,
        grid: Grid,
        q: Tensor,
        far: list[Tensor],
        own: tuple[Tensor, Tensor],
        weight: Tensor | None,
        real: Tensor | None,
    ) -> Tensor:
        """Each block's queries meet its sorted block and itself."""
        block, blocks = self.spec.block, grid.blocks
        k, v = (torch.cat([f, o.unflatten(1, (-1, block))], 2).flatten(0, 1) for f, o in zip(far, own, strict=True))
        mask = None
        if weight is not None:
            near = torch.zeros_like(weight)
            if real is not None:
                missing = ~real.unflatten(1, (-1, block))
                missing = missing & ~missing.all(-1, keepdim=True)  # a block of nothing is read by nobody
                near = near.masked_fill(missing[:, None], float("-inf"))
            mask = torch.cat([weight, near], -1).transpose(1, 2).flatten(0, 1)[:, :, None].to(q.dtype)
        out = self.attend(grid.window(q).unflatten(1, (-1, block)).flatten(0, 1), k, v, mask)
        return grid.back(out.unflatten(0, (-1, blocks)).flatten(1, 2))

    def _cut(self, q: Tensor, far: list[Tensor], weight: Tensor | None) -> Tensor:
        """Every query meets the sorted blocks that the cut leaves."""
        k, v = (t.flatten(1, 2) for t in far)
        mask = None
        if weight is not None:
            mask = weight.flatten(2)
            blind = mask.isneginf().all(-1, keepdim=True)  # a row of padding alone
            mask = mask.masked_fill(blind, 0)[:, :, None].to(q.dtype)
        return self.attend(q, k, v, mask)


def shares(matrix: Tensor, real: Tensor | None, block: int) -> Tensor:
    """(B, H, W, b): how much of each mixed slot is made of tokens; real (B or 1, N * b), None: all of it.

    Slots with next to nothing in them have 0, and so have the slots of a block that no other is sorted to.
    """
    total = matrix.sum(-1, keepdim=True)
    held = total.expand(-1, -1, -1, block)
    if real is not None:
        held = matrix @ real.unflatten(1, (-1, block)).to(matrix.dtype)[:, None]
    floor = torch.finfo(matrix.dtype).eps
    share = held / total.clamp(min=floor)
    return share.masked_fill(share < floor, 0)
