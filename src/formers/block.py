"""Blocks: sublayers in the order they run, joined by a residual rule. Depth is a tuple of blocks."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from formers.call import Call, Layer, Out, add_losses, add_records, skip
from formers.residual import PreNorm, Residual
from formers.spec.core import Site


class Block(Layer):
    """Sublayers (attention, feed-forward, ...) and the rule by which they join the residual stream."""

    sublayers: tuple[Layer, ...]
    residual: Residual = PreNorm()

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if not self.sublayers:
            yield "a block without sublayers does nothing", "sublayers=(MLP(hidden=256),)"
        for sublayer in self.sublayers:
            if sublayer.in_dim(site.dim) != site.dim:
                what = f"a {type(sublayer).__name__} reads {sublayer.in_dim(site.dim)} numbers for each token"
                yield f"{what}, and this stream has {site.dim}", 'streams="copied"'
            if sublayer.out_dim(site.dim) != site.dim:
                what = f"a {type(sublayer).__name__} puts out {sublayer.out_dim(site.dim)} numbers for each token"
                yield f"{what}, which cannot join a stream {site.dim} wide", 'merge="mean"'

    def build(self, site: Site) -> nn.Module:
        return BlockLayer(self, site)


class BlockLayer(nn.Module):
    """Every part of a depth has this contract: (x, call, state, choices) -> Out."""

    def __init__(self, spec: Block, site: Site) -> None:
        super().__init__()
        self.sublayers = nn.ModuleList(sublayer.build(site.part(i)) for i, sublayer in enumerate(spec.sublayers))
        self.residual = spec.residual.build(site, spec.sublayers)

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        outs: list[Out] = []

        def run(layer: nn.Module, past: Any, chosen: Any) -> Callable[[Tensor], Tensor]:
            def sublayer(y: Tensor) -> Tensor:
                outs.append(layer(y, call, past, chosen))
                return outs[-1].y

            return sublayer

        none = (None,) * len(self.sublayers)
        parts = zip(self.sublayers, state or none, choices or none, strict=True)
        y = self.residual(x, [run(*part) for part in parts])
        return collect(y, outs, call)

    def skip(self, x: Tensor, call: Call, state: Any = None) -> tuple[Any, ...]:
        """The state after tokens that are carried past this block: each sublayer reads them, none writes to them."""
        states: list[Any] = []

        def read(layer: nn.Module, past: Any) -> Callable[[Tensor], Tensor]:
            def sublayer(y: Tensor) -> Tensor:
                states.append(skip(layer, y, call, past))
                return torch.zeros_like(y)

            return sublayer

        parts = zip(self.sublayers, state or (None,) * len(self.sublayers), strict=True)
        self.residual(x, [read(*part) for part in parts])
        return tuple(states)


class StackLayer(nn.Module):
    """The blocks of a model, one after another."""

    def __init__(self, blocks: tuple[Layer, ...], site: Site) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(block.build(site.part(i)) for i, block in enumerate(blocks))

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        outs: list[Out] = []
        none = (None,) * len(self.blocks)
        for block, past, chosen in zip(self.blocks, state or none, choices or none, strict=True):
            out = block(x, call, past, chosen)
            x = out.y
            outs.append(out)
        return collect(x, outs, call)


def chain_problems(blocks: tuple[Layer, ...], dim: int, width: int) -> Iterator[tuple[str, str]]:
    """What is wrong with blocks one behind another at a site `dim` wide, where the first one is given `width` numbers."""
    before = "what stands before them"
    for block in blocks:
        reads = block.in_dim(dim)
        if reads != width:
            mend = 'merge="mean"' if width > reads else 'streams="copied"'
            yield f"{before} puts out {width} numbers for each token, and the block behind it reads {reads}", mend
        before, width = f"a {type(block).__name__}", block.out_dim(dim)


def collect(y: Tensor, outs: list[Out], call: Call) -> Out:
    """One Out of several: states, choices and records side by side, losses summed by name."""
    states = tuple([out.state for out in outs]) if call.remember else None
    if not any(out.losses or out.choices is not None or out.records for out in outs):
        return Out(y, states)  # most layers have none of these, and steps of decoding are short
    choices = tuple(out.choices for out in outs)
    return Out(
        y,
        states,
        add_losses(*(out.losses for out in outs)),
        choices if any(choice is not None for choice in choices) else None,
        add_records(*(out.records for out in outs)),
    )


def stack(*blocks: Layer, times: int) -> tuple[Layer, ...]:
    """The blocks, repeated: each copy gets parameters of its own."""
    return blocks * times
