"""What attention chose in one pass over a text: taken out of the pass by hooks, which the model never notices."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from formers.attention import LSH, Routing
from formers.attention.clusters import ClusterPlan
from formers.attention.layer import AttentionLayer
from formers.attention.plan import Plan, Tiles
from formers.attention.select import Selector, SelectorRule
from formers.attention.sorted.plan import SortedPlan
from formers.attention.top_blocks.plan import BlocksPlan
from formers.call import Encoded
from formers.encoder_decoder import EncoderDecoder
from formers.places import Places, Spots
from formers.report.square import PIECE, keys_seen, marks_of, visible

AnyPlan = Plan | SortedPlan | ClusterPlan | BlocksPlan


@dataclass(frozen=True)
class Selection:
    """What one attention chose. path: where it stands in the spec; at: its tokens, which are its queries and its keys."""

    path: str
    layer: AttentionLayer
    at: Places
    choices: Any

    @property
    def select(self) -> Selector:
        """What chose."""
        select: Selector | None = self.layer.spec.select
        if select is None:
            raise TypeError(f"{self.path} chooses nothing by content")
        return select

    @property
    def heads(self) -> int:
        return self.layer.spec.heads

    @cached_property
    def plan(self) -> AnyPlan | None:
        """Which pairs the choices lead to; None: all that the pattern shows."""
        rule: Any = self.layer.select
        plan: AnyPlan | None = rule.plan(self.choices, self.at, self.at)
        return plan

    def pairs(self, head: int) -> Tensor:
        """The pairs that meet in a head and that the pattern shows, each once: query * T + key, ascending (P,)."""
        if self.plan is None:
            return self._shown(head)
        plan = _of_head(self.plan, head)
        groups = plan.groups if isinstance(plan, Plan) else plan.tiles().groups
        found = [self._met(tiles, head) for tiles in groups]
        return torch.cat([*found, torch.empty(0, dtype=torch.int64)]).unique()

    def shown(self) -> float:
        """How many pairs the pattern shows; the mean of the heads."""
        return keys_seen(self.layer.pattern, self.heads, self.at.length)[0] * self.at.length

    def groups(self, head: int) -> list[list[int]]:
        """The tokens that fell together in a head: into one bucket of the first hash, or one cluster; largest first."""
        if isinstance(self.select, Routing) and self.select.balanced:
            sides = self.choices.queries[0, head]
            found = [[token for token in members if token >= 0] for members in sides.tolist()]
        elif isinstance(self.select, (LSH, Routing)):
            buckets: dict[int, list[int]] = {}
            for token, bucket in enumerate(self.choices[0, head, 0].tolist()):
                buckets.setdefault(bucket, []).append(token)
            found = list(buckets.values())
        else:
            found = []
        return sorted(found, key=len, reverse=True)

    def _shown(self, head: int) -> Tensor:
        length, found = self.at.length, []
        for rows in torch.arange(length).split(max(1, PIECE // length)):
            seen = visible(self.layer.pattern, self.heads, rows, length)
            query, key = seen[head if len(seen) > 1 else 0].nonzero().unbind(1)
            found.append(rows[query] * length + key)
        return torch.cat(found)

    def _met(self, tiles: Tiles, head: int) -> Tensor:
        rows, columns = tiles.q_index[0, 0, :, :, None], tiles.k_index[0, 0, :, None]
        none = {mark: torch.zeros(1, dtype=torch.int64) for mark in marks_of(self.layer.pattern)}
        met = self.layer.pattern.visible(Spots(rows, none), Spots(columns, none), torch.tensor(head))
        met = met & (rows >= 0) & (columns >= 0)
        if tiles.meet is not None:
            met = met & tiles.meet[0, 0]
        return (rows * self.at.length + columns)[met]


def choosing_layers(model: nn.Module) -> Iterator[tuple[str, AttentionLayer]]:
    """Every attention of a model that chooses by content, with its path in the spec."""
    for name, module in model.named_modules():
        if isinstance(module, AttentionLayer) and isinstance(module.select, SelectorRule):
            yield spec_path(name), module


def spec_path(name: str) -> str:
    """The path in the spec of a module of a model, by its name.

    Modules are named as the fields that they are built from, a model's depth apart, which stands in a `stack`.
    """
    return re.sub(r"\.(\d+)", r"[\1]", re.sub(r"(^|\.)stack\.", r"\1", name))


@torch.no_grad()
def selections(model: Any, tokens: list[int]) -> list[Selection]:
    """What each attention that chooses by content chose for a text. An encoder-decoder reads it on both sides."""
    found: dict[str, Selection] = {}

    def note(path: str, layer: AttentionLayer) -> Any:
        def hook(module: nn.Module, given: tuple[Any, ...], out: Any) -> None:
            found.setdefault(path, Selection(path, layer, given[1].at, out.choices))

        return hook

    hooks = [layer.register_forward_hook(note(path, layer)) for path, layer in choosing_layers(model)]
    try:
        _read(model, torch.tensor([tokens]))
    finally:
        for hook in hooks:
            hook.remove()
    return list(found.values())


def _read(model: Any, tokens: Tensor) -> None:
    """One pass that could be continued: only so does attention work on all heads together."""
    marks = {mark: torch.zeros_like(tokens) for mark in sorted(set(marks_of(model.spec)))}
    if not isinstance(model.spec, EncoderDecoder):
        model(tokens, marks=marks, logits_at=None)
        return
    hidden = model.source(tokens, marks=marks, logits_at=None).hidden
    model.target(
        tokens, marks=marks, logits_at=None, encoded=Encoded(hidden, Places.run(0, tokens.shape[1], None, marks))
    )


def _of_head(plan: AnyPlan, head: int) -> AnyPlan:
    """The same plan for one head and one row of the batch."""

    def own(t: Tensor) -> Tensor:
        at = head if t.shape[1] > 1 else 0
        return t[:1, at : at + 1]

    if isinstance(plan, SortedPlan):
        return replace(plan, order=own(plan.order), slot=own(plan.slot), bucket=own(plan.bucket))
    if isinstance(plan, ClusterPlan):
        return ClusterPlan(own(plan.queries), None if plan.keys is None else own(plan.keys))
    if isinstance(plan, BlocksPlan):
        return replace(plan, choices=own(plan.choices))
    groups = (
        Tiles(own(tiles.q_index), own(tiles.k_index), None if tiles.meet is None else own(tiles.meet))
        for tiles in plan.groups
    )
    return replace(plan, groups=tuple(groups))
