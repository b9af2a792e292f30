"""A built decoder as a flat list of operations over packed arrays, and an engine that runs them one token at a time."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from formers.attention import Causal
from formers.attention.layer import AttentionLayer
from formers.attention.project import DenseLayer
from formers.block import BlockLayer
from formers.embedding import EmbeddingLayer
from formers.errors import FormersError
from formers.feedforward import GLULayer, MLPLayer
from formers.head import TiedLayer, UntiedLayer
from formers.memory import KeepAllRule
from formers.model import TokenLayer
from formers.position import PositionLayer
from formers.position.absolute import LearnedLayer
from formers.position.rotary import RotaryLayer
from formers.residual import PreNormRule


class Op(NamedTuple):
    """One operation: what it is called, its arrays, its numbers and words."""

    name: str
    arrays: tuple[np.ndarray, ...] = ()
    given: tuple[Any, ...] = ()


def lower(part: nn.Module) -> list[Op]:
    """The operations of a built part. Raises FormersError, naming it, on one that has no rule: of this very type,
    for a part that inherits from another does not mean the same."""
    rule = rules.registry.get(type(part))
    if rule is None:
        raise FormersError(f"{type(part).__name__} cannot be lowered to the native engine: decode with PyTorch")
    return list(rule(part))


@functools.singledispatch
def rules(part: nn.Module) -> Iterator[Op]:
    """Registered with each kind of part that the engine knows."""
    raise NotImplementedError


@rules.register
def _(model: TokenLayer) -> Iterator[Op]:
    yield from lower(model.embedding)
    for block in model.stack.blocks:
        yield from lower(block)
    yield from [Op("copy")] if model.norm is None else lower(model.norm)
    if type(model.head) is TiedLayer:
        yield Op("linear", arrays(model.embedding.tokens.weight, model.head.bias))
    else:
        yield from lower(model.head)


@rules.register
def _(embedding: EmbeddingLayer) -> Iterator[Op]:
    for extra in (embedding.segments, embedding.norm):
        if extra is not None:
            raise FormersError(f"an embedding with {type(extra).__name__} cannot be lowered to the native engine")
    yield Op("embed", arrays(embedding.tokens.weight * embedding.scale))
    if embedding.position is not None:
        yield from lower(embedding.position)


@rules.register
def _(position: LearnedLayer) -> Iterator[Op]:
    yield Op("place", arrays(position.table.weight))


@rules.register
def _(block: BlockLayer) -> Iterator[Op]:
    lower(block.residual)
    for norm, sublayer in zip(block.residual.norms, block.sublayers, strict=True):
        yield from [*lower(norm), *lower(sublayer), Op("add")]


@rules.register
def _(norm: nn.LayerNorm) -> Iterator[Op]:
    yield Op("layer_norm", arrays(norm.weight, norm.bias), (norm.eps,))


@rules.register
def _(norm: nn.RMSNorm) -> Iterator[Op]:
    yield Op("rms_norm", arrays(norm.weight), (norm.eps,))


@rules.register
def _(layer: AttentionLayer) -> Iterator[Op]:
    if layer.select is not None or layer.pattern != Causal():
        raise FormersError(f"{layer.spec.select or layer.pattern!r} cannot be lowered to the native engine")
    lower(layer.memory)
    heads, kv_heads = layer.spec.heads, layer.spec.kv_heads or layer.spec.heads
    qkv, out = lower(layer.projection)
    yield qkv
    for op in lower(layer.position):
        yield op._replace(given=(*op.given, heads + kv_heads))
    yield Op("attend", (), (heads, kv_heads, layer.scale))
    yield out


@rules.register
def _(projection: DenseLayer) -> Iterator[Op]:
    yield linear(projection.q_proj, projection.k_proj, projection.v_proj)
    yield linear(projection.out_proj)


@rules.register(PreNormRule)
@rules.register(KeepAllRule)
@rules.register(PositionLayer)
def _(part: nn.Module) -> Iterator[Op]:
    yield from ()  # what the engine does anyway; a position of this very type does nothing


@rules.register
def _(position: RotaryLayer) -> Iterator[Op]:
    rates = position.spec.theta ** -(np.arange(0, position.head_dim, 2) / position.head_dim)
    yield Op("rotate", (rates,), (position.spec.pairing,))


@rules.register
def _(layer: MLPLayer) -> Iterator[Op]:
    yield from (linear(layer.up), Op(layer.spec.activation), linear(layer.down))


@rules.register
def _(layer: GLULayer) -> Iterator[Op]:
    yield from (linear(layer.gate, layer.up), Op(layer.spec.activation, (), ("gated",)), linear(layer.down))


@rules.register
def _(head: UntiedLayer) -> Iterator[Op]:
    yield linear(head.proj)


def linear(*products: nn.Linear) -> Op:
    """One product of several that read the same vector."""
    biases = [p.bias for p in products if p.bias is not None]
    return Op("linear", arrays(torch.cat([p.weight for p in products]), torch.cat(biases) if biases else None))


def arrays(*tensors: Tensor | None) -> tuple[np.ndarray, ...]:
    return tuple(t.detach().clone().numpy() for t in tensors if t is not None)
