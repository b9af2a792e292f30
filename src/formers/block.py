"""Blocks: sublayers in the order they run, joined by a residual rule. Depth is a tuple of blocks."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from formers.call import Call, Layer, Out, add_losses
from formers.residual import PreNorm, Residual
from formers.spec.core import Site


class Block(Layer):
    """Sublayers (attention, feed-forward, ...) and the rule by which they join the residual stream."""

    sublayers: tuple[Layer, ...]
    residual: Residual = PreNorm()

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if not self.sublayers:
            yield "a block without sublayers does nothing", "sublayers=(MLP(hidden=256),)"

    def build(self, site: Site) -> nn.Module:
        return BlockLayer(self, site)


class BlockLayer(nn.Module):
    """Every part of a depth has this contract: (x, call, state, choices) -> Out."""

    def __init__(self, spec: Block, site: Site) -> None:
        super().__init__()
        self.sublayers = nn.ModuleList(sublayer.build(site) for sublayer in spec.sublayers)
        self.residual = spec.residual.build(site, len(spec.sublayers))

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
        return collect(y, outs)


class StackLayer(nn.Module):
    """The blocks of a model, one after another."""

    def __init__(self, blocks: tuple[Layer, ...], site: Site) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(block.build(site) for block in blocks)

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        outs: list[Out] = []
        none = (None,) * len(self.blocks)
        for block, past, chosen in zip(self.blocks, state or none, choices or none, strict=True):
            outs.append(block(x, call, past, chosen))
            x = outs[-1].y
        return collect(x, outs)


def collect(y: Tensor, outs: list[Out]) -> Out:
    """One Out of several: states and choices side by side, losses summed by name."""
    choices = tuple(out.choices for out in outs)
    made = any(choice is not None for choice in choices)
    return Out(
        y, tuple(out.state for out in outs), add_losses(*(out.losses for out in outs)), choices if made else None
    )


def stack(*blocks: Layer, times: int) -> tuple[Layer, ...]:
    """The blocks, repeated: each copy gets parameters of its own."""
    return blocks * times
