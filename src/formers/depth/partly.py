"""A block that some tokens of a call go through, and the others are carried past."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from formers.block import Block, BlockLayer, collect
from formers.call import Call, Layer, Out
from formers.feedforward import FeedForwardLayer


def partly_problems(block: Layer) -> Iterator[tuple[str, str]]:
    """What is wrong with a block whose tokens may be carried past it."""
    if not isinstance(block, Block):
        what = f"a {type(block).__name__} is run for all tokens or for none, and tokens that have halted are copied past it"
        yield what, 'halted="transformed", or block=Block((...))'


def partly(block: nn.Module, x: Tensor, call: Call, state: Any, choices: Any, moving: Tensor) -> Out:
    """The block for the tokens that move, (B, T) bool; of the others it remembers what `skip` says, whoever moves.

    y (B, T, M) means nothing at tokens that do not move. Every sublayer reads all tokens, and writes to those that move.
    """
    assert isinstance(block, BlockLayer)
    real = call.at.real
    if bool((moving if real is None else moving | ~real).all()):
        whole: Out = block(x, call, state, choices)
        return whole
    outs: list[Out] = []

    def run(layer: nn.Module, past: Any, chosen: Any) -> Callable[[Tensor], Tensor]:
        def sublayer(y: Tensor) -> Tensor:
            outs.append(_written(layer, y, call, past, chosen, moving))
            return outs[-1].y

        return sublayer

    none = (None,) * len(block.sublayers)
    parts = zip(block.sublayers, state or none, choices or none, strict=True)
    return collect(block.residual(x, [run(*part) for part in parts]), outs, call)


def _written(layer: nn.Module, x: Tensor, call: Call, past: Any, chosen: Any, moving: Tensor) -> Out:
    """A sublayer's output, 0 where tokens do not move. In inference, what goes token by token is run for the others alone."""
    if isinstance(layer, FeedForwardLayer) and not torch.is_grad_enabled():
        made: Tensor = layer(x[moving][None], call).y
        return Out(made.new_zeros(x.shape).masked_scatter(moving[..., None], made))
    out: Out = layer(x, call, past, chosen)
    return out._replace(y=out.y.masked_fill(~moving[..., None], 0))
