"""Recomputation: training keeps the stream between blocks, and the backward pass makes all else once more."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from formers.block import collect
from formers.call import Call, Layer, Out, skip
from formers.reversible import Reversible
from formers.spec.core import Site, parts_within


class Recomputed(Layer):
    """Blocks of which training keeps nothing but their inputs; the backward pass runs each of them once more.

    Chen et al. 2016, arXiv:1604.06174, as Sparse Transformers use it to be hundreds of layers deep, Child et al. 2019,
    arXiv:1904.10509, section 5.4. Outputs and gradients are those of the same blocks by themselves: the second pass
    draws the random numbers of the first and is given its choices. What is kept is one stream (B, T, M) a block, in
    fp32 or whatever it runs in, and where torch's generators stood; what a block keeps inside exists for one block at a
    time. Blocks of one sublayer each recompute each sublayer by itself: less at a time, more streams.

    A `Recomputed` may stand in another, which then keeps one stream for all the blocks of the inner one.
    """

    blocks: tuple[Layer, ...]

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if not self.blocks:
            yield "there is nothing to recompute", "blocks=stack(Block((...)), times=2)"
        for block in self.blocks:
            name = type(block).__name__
            if any(isinstance(part, Reversible) for part in parts_within(block)):
                what = f"a {name} holds a Reversible, which keeps nothing that could be recomputed"
                yield what, "put it beside this Recomputed"
            elif {block.in_dim(site.dim), block.out_dim(site.dim)} != {site.dim} or block.source_dim(site.dim):
                what = f"a {name} does not go from one stream {site.dim} wide to another, and is not recomputed"
                yield what, "put it beside this Recomputed"

    def build(self, site: Site) -> nn.Module:
        return RecomputedLayer(self, site)


class RecomputedLayer(nn.Module):
    """The blocks as they would stand in an ordinary depth."""

    def __init__(self, spec: Recomputed, site: Site) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(block.build(site.part(i)) for i, block in enumerate(spec.blocks))

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        outs: list[Out] = []
        none = (None,) * len(self.blocks)
        run = twice if torch.is_grad_enabled() else nn.Module.__call__
        for block, past, chosen in zip(self.blocks, state or none, choices or none, strict=True):
            out: Out = run(block, x, call, past, chosen)
            x = out.y
            outs.append(out)
        return collect(x, outs, call)

    def skip(self, x: Tensor, call: Call, state: Any = None) -> tuple[Any, ...]:
        """What each block remembers of tokens that are carried past all of them."""
        pasts = state or (None,) * len(self.blocks)
        return tuple(skip(block, x, call, past) for block, past in zip(self.blocks, pasts, strict=True))


def twice(block: nn.Module, x: Tensor, call: Call, past: Any, choices: Any) -> Out:
    """The block's output, of which the backward pass makes again what it needs, with the choices of the first pass."""
    made = choices

    def run(x: Tensor) -> Out:
        nonlocal made
        out: Out = block(x, call, past, made)
        made = out.choices
        return out

    out: Out = checkpoint(run, x, use_reentrant=False)
    return out
