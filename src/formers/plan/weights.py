"""What of a model's parameters can be shared out, counted on the meta device."""

from typing import NamedTuple

from torch import nn

from formers.block import StackLayer
from formers.distributed.experts import mixtures
from formers.plan.depth import extrapolated
from formers.recomputed import RecomputedLayer


class Weights(NamedTuple):
    """Numbers of parameters. total: all; experts: those that can be divided over devices; largest: of the part of a depth
    that has most, with its experts; largest_experts: of these; rest: outside of all depths.

    seats: how wide all is that goes to experts and comes back for one token, summed over layers.
    """

    total: int
    experts: int
    largest: int
    largest_experts: int
    rest: int
    seats: float


def weights_of(spec: object) -> Weights:
    """Those of a model of this spec."""
    from formers.model import on_meta

    def counted(shallow: object) -> dict[str, float]:
        return {name: float(value) for name, value in _count(on_meta(shallow))._asdict().items()}

    found = extrapolated(counted, spec)
    whole = {name: round(value) for name, value in found.items() if name != "seats"}
    return Weights(**whole, seats=found["seats"])


def _count(model: nn.Module) -> Weights:
    experts = sum(_numbers(layer.experts) for layer in mixtures(model))
    parts = _parts(model)
    largest = max(parts, key=_numbers)
    seats = sum(layer.spec.top_k * max(1.0, layer.spec.capacity or 1.0) * _width(layer) for layer in mixtures(model))
    rest = _numbers(model) - _numbers(nn.ModuleList(parts))
    inner = sum(_numbers(layer.experts) for layer in mixtures(largest))
    return Weights(_numbers(model), experts, _numbers(largest), inner, rest, seats)


def _parts(model: nn.Module) -> list[nn.Module]:
    """What `fully_shard` is told to gather together: see `formers.distributed.full`."""
    stacks = [module for module in model.modules() if isinstance(module, StackLayer)]
    blocks = [block for stack in stacks for block in stack.blocks]
    return [part for block in blocks for part in (block.blocks if isinstance(block, RecomputedLayer) else [block])]


def _width(layer: nn.Module) -> int:
    return int(layer.router.weight.shape[1])  # type: ignore[union-attr, index]


def _numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
