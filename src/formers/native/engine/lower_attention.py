"""Rules for attention: what it keeps, which keys a query sees, and how order enters its scores."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from formers.attention.cross import CrossAttentionLayer
from formers.attention.layer import AttentionLayer
from formers.attention.own_keys import EPS
from formers.attention.project import DenseLayer
from formers.attention.shared_qk import SharedQKLayer
from formers.errors import NoRuleError
from formers.memory import KeepAllRule
from formers.native.engine.build import NOTHING, Builder, linear
from formers.native.engine.lower_patterns import pattern_ints
from formers.native.engine.rules import (
    Heads,
    Slice,
    keys_rule,
    order_rule,
    output_rule,
    projection_rule,
    query_rule,
    skip_rule,
    sublayer_rule,
)
from formers.position.core import PositionLayer
from formers.position.distance import ALiBiLayer, T5BucketsLayer
from formers.position.rotary import RotaryLayer
from formers.position.self_last import SelfLastLayer

PATTERNS_AT = 7  # where they begin in the ints of `attend`
Turned = list[tuple[Slice, int]]  # heads that positions turn, and how many


class Order(NamedTuple):
    """How order enters the score: what is added where a query meets its own key, and vectors of slopes by head and of
    biases by distance."""

    charge: float = 0.0
    slopes: int = NOTHING
    biases: int = NOTHING


@sublayer_rule(AttentionLayer)
def _(layer: AttentionLayer, build: Builder, x: int, into: int, add: bool) -> None:
    if layer.select is not None:
        raise NoRuleError(
            f"the native engine has no rule for {type(layer.select).__name__}, a choice of keys by content"
        )
    if type(layer.memory) is not KeepAllRule:
        raise NoRuleError(f"the native engine has no rule for {type(layer.memory).__name__}, a memory")
    heads, kv_heads = layer.spec.heads, layer.spec.kv_heads or layer.spec.heads
    width = head_dim(layer)
    made: Heads = projection_rule.apply(layer.projection, build, x)
    order: Order = order_rule.apply(layer.position, build, [(made.q, heads), (made.k, kv_heads)])
    patterns = pattern_ints(layer.pattern, heads, PATTERNS_AT, build.length)
    out = build.register(heads * width)
    build.op(
        "attend",
        reads=[part.register for part in made],
        writes=[out],
        ints=[heads, kv_heads, width, width, *(part.first for part in made), *patterns],
        floats=[layer.scale, order.charge],
        vectors=[order.slopes, order.biases],
        caches=caches_of(layer, build),
    )
    build.release(*{part.register for part in made})
    output_rule.apply(layer.projection, build, out, into, add)
    build.release(out)


def caches_of(layer: AttentionLayer, build: Builder) -> list[int]:
    """Where attention keeps its keys and values."""
    heads, horizon = layer.spec.kv_heads or layer.spec.heads, layer.pattern.horizon
    keep, width = "growing" if horizon is None else "rolling", head_dim(layer)
    return build.kept_by(layer, lambda: build.keys_and_values(keep, heads=heads, capacity=horizon or 0, width=width))


def head_dim(layer: AttentionLayer) -> int:
    """The width of a head."""
    width: int = layer.projection.head_dim  # type: ignore[assignment]
    return width


@skip_rule(AttentionLayer)
def _(layer: AttentionLayer, build: Builder, x: int) -> None:
    k, v = keys_rule.apply(layer.projection, build, x)
    heads, width = layer.spec.kv_heads or layer.spec.heads, head_dim(layer)
    order_rule.apply(layer.position, build, [(k, heads)])
    ints = [heads, width, width, k.first, v.first]
    build.op("keep", reads=[k.register, v.register], ints=ints, caches=caches_of(layer, build))
    build.release(*{k.register, v.register})


@skip_rule(CrossAttentionLayer)
def _(layer: CrossAttentionLayer, build: Builder, x: int) -> None:
    """What it reads was given, and of its own tokens nothing is kept, but by projections that look back."""
    if layer.projection.looks_back or layer.projection.output_looks_back:
        name = type(layer.projection).__name__
        raise NoRuleError(f"the native engine has no rule for {name}, a projection that remembers tokens, passed by")


@sublayer_rule(CrossAttentionLayer)
def _(layer: CrossAttentionLayer, build: Builder, x: int, into: int, add: bool) -> None:
    heads, kv_heads = layer.spec.heads, layer.spec.kv_heads or layer.spec.heads
    width: int = layer.projection.head_dim  # type: ignore[assignment]
    q: Slice = query_rule.apply(layer.projection, build, x)
    caches = build.keys_and_values("given", heads=kv_heads, capacity=0, width=width)
    out = build.register(heads * width)
    ints = [heads, kv_heads, width, width, q.first]
    build.op(
        "cross", reads=[q.register], writes=[out], ints=ints, floats=[layer.scale], vectors=[NOTHING] * 2, caches=caches
    )
    build.release(q.register)
    output_rule.apply(layer.projection, build, out, into, add)
    build.release(out)


@order_rule(PositionLayer)
def _(position: PositionLayer, build: Builder, parts: Turned) -> Order:
    return Order()


@order_rule(SelfLastLayer)
def _(position: SelfLastLayer, build: Builder, parts: Turned) -> Order:
    return Order(charge=position.charge)


@order_rule(ALiBiLayer)
def _(position: ALiBiLayer, build: Builder, parts: Turned) -> Order:
    return Order(slopes=build.vector(torch.tensor(position.slopes)))


@order_rule(T5BucketsLayer)
def _(position: T5BucketsLayer, build: Builder, parts: Turned) -> Order:
    bucket = position.bucket(torch.arange(position.spec.max_distance + 1))
    return Order(biases=build.vector(position.table.weight.detach().mT[:, bucket.to(position.table.weight.device)]))


@order_rule(RotaryLayer)
def _(position: RotaryLayer, build: Builder, parts: Turned) -> Order:
    width, theta = position.head_dim, position.spec.theta

    def angles() -> int:
        periods: Tensor = theta ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
        register = build.register(width)
        build.op("angles", writes=[register], vectors=[build.vector(periods)])
        return register

    turned = build.once(("angles", theta, width), angles)
    for part, count in parts:
        ints = [part.first, count, width, position.spec.pairing == "halves"]
        build.op("rotate", reads=[turned], writes=[part.register], ints=ints)
    return Order()


@projection_rule(DenseLayer)
def _(projection: DenseLayer, build: Builder, x: int) -> Heads:
    if build.passed_by is not None:  # two products, the second of which is also made alone
        return Heads(query_rule.apply(projection, build, x), *keys_rule.apply(projection, build, x))
    parts = projection.q_proj, projection.k_proj, projection.v_proj
    q, k, v = (part.out_features for part in parts)
    register = build.register(q + k + v)
    linear(build, x, register, *parts)
    return Heads(Slice(register), Slice(register, q), Slice(register, q + k))


@keys_rule(DenseLayer)
def _(projection: DenseLayer, build: Builder, x: int) -> tuple[Slice, Slice]:
    parts = projection.k_proj, projection.v_proj
    k, v = (part.out_features for part in parts)
    register = build.register(k + v)
    linear(build, x, register, *parts)
    return Slice(register), Slice(register, k)


@projection_rule(SharedQKLayer)
def _(projection: SharedQKLayer, build: Builder, x: int) -> Heads:
    wide, width = projection.qk_proj.out_features, projection.head_dim
    register, keys = build.register(2 * wide), build.register(wide)
    linear(build, x, register, projection.qk_proj, projection.v_proj)
    build.op("unit", reads=[register], writes=[keys], ints=[0, wide // width, width], floats=[EPS])
    return Heads(Slice(register), Slice(keys), Slice(register, wide))


@query_rule(DenseLayer)
def _(projection: DenseLayer, build: Builder, x: int) -> Slice:
    register = build.register(projection.q_proj.out_features)
    linear(build, x, register, projection.q_proj)
    return Slice(register)


@output_rule(DenseLayer, SharedQKLayer)
def _(projection: Any, build: Builder, heads: int, into: int, add: bool) -> None:
    linear(build, heads, into, projection.out_proj, add=add)
