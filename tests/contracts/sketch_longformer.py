"""A window, and tokens that see and are seen by all. Longformer, Beltagy et al. 2020, arXiv:2004.05150."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from formers import Window
from formers.attention import Dense, Everything, Pattern
from formers.attention.backends import Request, attend
from formers.attention.layer import head_problems, heads_inside
from formers.attention.plan import Plan, Tiles, block_plan
from formers.call import Call, Layer, Out
from formers.places import Places, Spots
from formers.position import NoPosition
from formers.spec import Site


class SketchMarked(Pattern):
    """Keys that carry a mark are seen by all. Where they stand is known from the input only, so `reaches` says: anywhere."""

    mark: str

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        return (k.marks[self.mark] > 0) & (q.pos == q.pos)


class SketchLongformer(Layer):
    """Tokens with the mark "global" have queries, keys and values of their own for their own view of everything.

    window: keys nearer than this on either side.
    """

    heads: int
    window: int

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from head_problems(self.heads, None, None, site)
        if site.causal:
            yield "a global token sees the future", "Attention(pattern=Causal() & Window(256))"

    def inside(self, site: Site) -> Site:
        return heads_inside(site, self.heads, None, None)

    def build(self, site: Site) -> nn.Module:
        return SketchLongformerLayer(self, self.inside(site))


class SketchLongformerLayer(nn.Module):
    def __init__(self, spec: SketchLongformer, site: Site) -> None:
        super().__init__()
        self.spec, self.heads, self.scale = spec, site.heads, site.head_dim**-0.5
        self.projection = Dense().build(site)
        self.position = NoPosition().build(site)
        self.q_global, self.k_global, self.v_global = (nn.Linear(site.dim, site.dim) for _ in range(3))

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        marked = call.at.marks["global"] > 0
        marked = marked if call.at.real is None else marked & call.at.real
        slots = call.memo.once(("global", call.at), lambda: slots_of(marked))
        plan = call.memo.once(("window", self.spec.window, call.at), lambda: self.plan(call.at, marked, slots))
        pattern = Window(self.spec.window) | SketchMarked("global")
        k, v = self.projection.keys_values(x)
        heads = self.attend(self.projection.queries(x), k, v, call, call.at, pattern, plan)
        rows = slots.clamp(min=0)[..., None]
        seers = self.split(self.q_global(x.gather(1, rows.expand(-1, -1, x.shape[-1]))))
        at = Places(call.at.pos.expand(len(x), -1).gather(1, rows[..., 0]), slots >= 0)
        seen = self.attend(seers, self.split(self.k_global(x)), self.split(self.v_global(x)), call, at, Everything())
        heads = replace_rows(heads, slots, seen)
        return Out(self.projection.output(heads))

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, call: Call, at: Places, pattern: Pattern, plan: Plan | None = None
    ) -> Tensor:
        return attend(Request(q, k, v, at, call.at, pattern, self.position, self.scale, 0.0, call.memo, plan))

    def plan(self, at: Places, marked: Tensor, slots: Tensor) -> Plan:
        """Blocks of the window, then the global keys; those that a block holds already are taken out of it."""
        groups = []
        for tiles in block_plan(Window(self.spec.window), at, at, block=self.spec.window).groups:
            near = tiles.k_index.expand(len(marked), -1, -1, -1)
            twice = marked[:, None, None, :].expand(-1, 1, near.shape[2], -1).gather(-1, near.clamp(min=0))
            far = slots[:, None, None].expand(-1, 1, near.shape[2], -1)
            groups.append(Tiles(tiles.q_index, torch.cat([near.masked_fill(twice, -1), far], -1)))
        return Plan(tuple(groups), disjoint=True)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def slots_of(marked: Tensor) -> Tensor:
    """Where rows of (B, T) are True: (B, G), -1 where a row has fewer."""
    order = marked.long().argsort(stable=True, dim=1, descending=True)[:, : int(marked.sum(1).max())]
    return torch.where(marked.gather(1, order), order, -1)


def replace_rows(heads: Tensor, slots: Tensor, new: Tensor) -> Tensor:
    """heads (B, H, T, D) with `new` (B, H, G, D) at slots (B, G)."""
    spare = torch.cat([heads, heads[:, :, :1]], 2)  # a last row that takes what belongs nowhere
    rows = torch.where(slots < 0, heads.shape[2], slots)[:, None, :, None]
    return spare.scatter(2, rows.expand_as(new), new)[:, :, :-1]
