"""Rules for a block that is applied several times with the same weights, which are packed once."""

import torch
from torch import Tensor

from formers.depth.universal import UniversalLayer
from formers.errors import NoRuleError
from formers.native.engine.build import Builder
from formers.native.engine.rules import block_rule, place_rule
from formers.position.absolute import sinusoid


@block_rule(UniversalLayer)
def _(layer: UniversalLayer, build: Builder, x: int) -> int:
    if layer.halting is not None:
        raise NoRuleError(f"the native engine has no rule for {layer.spec.halting!r}, halting")
    for step in range(layer.spec.steps):
        if layer.position is not None:
            place_rule.apply(layer.position, build, x)
        build.op("shift", writes=[x], vectors=[build.vector(signal(layer, step, build.width(x)))])
        x = block_rule.apply(layer.block, build, x)
    return x


def signal(layer: UniversalLayer, step: int, width: int) -> Tensor:
    """What tells every token which step this is, counted from 0: (width,)."""
    if layer.time is not None:
        return layer.time.weight[step]
    return sinusoid(torch.tensor(step + 1), width, "interleaved", torch.float32)
