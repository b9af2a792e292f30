"""Sinkhorn attention for decoders."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from formers.attention.grid import Grid, take
from formers.attention.mixing import mix, sums_and_firsts
from formers.attention.sinkhorn_layer import SortedAttention, grid_of
from formers.attention.sorted.beside import attend_earlier, refuses_earlier
from formers.attention.sorting import ABSENT, earlier_noise, sinkhorn_causal
from formers.call import Call, Out
from formers.places import Places
from formers.state import Log


class Sorted(NamedTuple):
    """What the causal form remembers.

    k, v: (B, H, S, D), every key and value, standing at `places`. sums (B, N, M): token vectors summed over each block.
    sorted_k, sorted_v (B, 1, b, H, D): what is sorted to the open block. columns (B, H, iterations, N): logarithms of
    the columns' sums so far, for each iteration. tail: the projection's own state, if it has one.
    """

    k: Log
    v: Log
    places: Places
    sums: Tensor
    sorted_k: Tensor
    sorted_v: Tensor
    columns: Tensor
    tail: Any


class Found(NamedTuple):
    """How blocks are sorted. sums, columns: as in `Sorted`. begun (B, W): blocks of the window whose first token is new.
    matrix (B, H, W, N): the weights of all blocks in what is sorted to those of the window; None: nothing new."""

    sums: Tensor
    begun: Tensor
    matrix: Tensor | None
    columns: Tensor


class CausalSinkhornLayer(SortedAttention):
    """The form for decoders. What is sorted to a block is settled by the block's first token, and kept."""

    def forward(self, x: Tensor, call: Call, state: Sorted | None = None, choices: Any = None) -> Out:
        prepared, tail = self.projection.prepare(x, call.at, None if state is None else state.tail)
        k, v = self.projection.keys_values(prepared)
        if state is None:
            logs, places = (Log(k), Log(v)), call.at
        else:
            old = state.places
            places = call.memo.once(("join", old, call.at), lambda: old.join(call.at))
            logs = state.k.extend(k), state.v.extend(v)
        grid = grid_of(call, places, self.spec.block)
        keys, values = (log.view.transpose(1, 2) for log in logs)
        q = self.projection.queries(prepared).transpose(1, 2)
        if state is None and self._runs_at_once(grid, q, call):
            return Out(self.output(self._at_once(grid, q, keys, values, self._matrix(x, grid, call))))
        sums, far, columns = self._sort(x, keys, values, grid, call, state)
        heads = self._attend(grid, q, keys, values, far)
        sorted_k, sorted_v = (self._open(grid, t) for t in far)
        return Out(self.output(heads), Sorted(*logs, places, sums, sorted_k, sorted_v, columns, tail))

    def _sort(
        self, x: Tensor, keys: Tensor, values: Tensor, grid: Grid, call: Call, state: Sorted | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        """The new sums of blocks, the keys and values (B, W, b, H, D) sorted to the window, and the columns' sums."""
        found = self._matrix(x, grid, call, state)
        matrix = found.matrix
        if state is not None and matrix is None:
            return found.sums, (state.sorted_k, state.sorted_v), state.columns
        assert matrix is not None  # a first call always begins blocks
        far = tuple(mix(matrix, grid.everything(t), self.spec.block) for t in (keys, values))
        if state is not None:  # the first block of the window may have begun in an earlier call
            kept = ~found.begun[:, :1, None, None, None]
            past = (state.sorted_k, state.sorted_v)
            far = tuple(
                torch.cat([torch.where(kept, p, t[:, :1]), t[:, 1:]], 1) for p, t in zip(past, far, strict=True)
            )
        return found.sums, (far[0], far[1]), found.columns

    def _matrix(self, x: Tensor, grid: Grid, call: Call, state: Sorted | None = None) -> Found:
        """Which blocks are sorted to those of the window; no matrix where none of these has begun in this call."""
        spec = self.spec
        laid = grid.fresh(x).unflatten(1, (-1, spec.block))
        added, firsts = sums_and_firsts(laid)
        sums = grid.add(None if state is None else state.sums, added)
        begins = grid.index * spec.block
        begun = (begins >= grid.before[:, None]) & (begins < grid.total[:, None])  # blocks whose first token is new
        if state is not None and not bool(begun.any()):
            return Found(sums, begun, None, state.columns)
        scores = self._scores(sums, firsts, grid, call) / spec.temperature
        earlier = torch.arange(grid.blocks, device=x.device) < grid.index[..., None]
        allowed = (earlier & begun[..., None])[:, None]
        before = None
        if state is not None:
            before = F.pad(state.columns, (0, grid.blocks - state.columns.shape[-1]), value=ABSENT)
        matrix, columns = sinkhorn_causal(scores, spec.iterations, allowed, before)
        return Found(sums, begun, matrix, columns)

    def _scores(self, sums: Tensor, firsts: Tensor, grid: Grid, call: Call) -> Tensor:
        """(B, H, W, N): blocks of the window, known by everything up to their first token, against all blocks."""
        spec = self.spec
        # Shifted, and not the sum with the block itself taken off: rounding would tell of its later tokens.
        before = take(F.pad(sums[:, :-1], (0, 0, 1, 0)).cumsum(1), grid.index.clamp(max=grid.blocks - 1))
        known = (grid.index * spec.block + 1).to(sums.dtype).sqrt()
        scores = self.network((before + firsts) / known[..., None], sums * spec.block**-0.5)
        if self.noisy:
            noise = earlier_noise(grid.blocks, call.chance(self.path), scores)
            rows = grid.index.clamp(max=grid.blocks - 1)
            scores = scores + spec.noise * take(noise.transpose(1, 2), rows).transpose(1, 2)
        return scores

    def _attend(self, grid: Grid, q: Tensor, keys: Tensor, values: Tensor, far: tuple[Tensor, Tensor]) -> Tensor:
        """One softmax over the sorted block, where there is one, and one's own block up to oneself."""
        block, width = self.spec.block, grid.width
        own = (grid.window(t).unflatten(1, (width, block)) for t in (keys, values))
        k, v = (torch.cat([f, o], 2).flatten(0, 1) for f, o in zip(far, own, strict=True))
        slot = torch.arange(block, device=q.device)
        if width == 1:  # few tokens: their queries need not be laid out
            offset = grid.offsets.clamp(0, block - 1)
            sees = slot <= offset[..., None]
            any_far = (grid.index > 0)[..., None].expand_as(sees)
            return self.attend(q, k, v, torch.cat([any_far, sees], -1)[:, None])
        sees = (slot <= slot[:, None]).expand(*grid.index.shape, block, block)
        any_far = (grid.index > 0)[..., None, None].expand_as(sees)
        mask = torch.cat([any_far, sees], -1).expand(q.shape[0], -1, -1, -1).flatten(0, 1)[:, None]
        out = self.attend(grid.fresh(q).unflatten(1, (width, block)).flatten(0, 1), k, v, mask)
        return grid.back(out.unflatten(0, (-1, width)).flatten(1, 2))

    def _runs_at_once(self, grid: Grid, x: Tensor, call: Call) -> bool:
        """Whether the native operator runs this: a whole sequence without padding, no state, and no weight dropped."""
        whole = grid.run and grid.first_of_all == 0 and grid.width > 1 and not call.remember
        dropping = self.training and self.spec.dropout > 0
        return whole and not dropping and refuses_earlier(x) is None

    def _at_once(self, grid: Grid, q: Tensor, k: Tensor, v: Tensor, found: Found) -> Tensor:
        """The same as `_attend`, without putting the sorted blocks beside the others."""
        assert found.matrix is not None  # a first call always begins blocks
        q, k, v = (grid.fresh(t).transpose(1, 2) for t in (q, k, v))
        return grid.back(attend_earlier(q, k, v, found.matrix, self.spec.block).transpose(1, 2))

    def _open(self, grid: Grid, far: Tensor) -> Tensor:
        """What is sorted to the block that the next token falls into, if that has begun: (B, 1, b, H, D)."""
        last = (grid.total // self.spec.block - grid.first).clamp(max=grid.width - 1)
        return take(far, last[:, None])
