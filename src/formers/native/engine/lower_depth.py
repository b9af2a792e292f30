"""Rules for the depth: blocks, two streams, and what feeds each token forward by itself."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from formers.block import BlockLayer
from formers.encoder_decoder.after_encoder import AfterEncoderLayer
from formers.errors import NoRuleError
from formers.feedforward import GLULayer, MLPLayer
from formers.linear import LinearLayer
from formers.native.engine.build import Builder, activation_number, linear
from formers.native.engine.rules import block_rule, norm_rule, sublayer_rule
from formers.parallel import ParallelLayer
from formers.recomputed import RecomputedLayer
from formers.residual import PostNormRule, PreNormRule
from formers.reversible.spec import Reversible, ReversibleLayer


@block_rule(BlockLayer)
def _(block: BlockLayer, build: Builder, x: int) -> int:
    before = type(block.residual) is PreNormRule
    if not before and type(block.residual) is not PostNormRule:
        raise NoRuleError(f"the native engine has no rule for {type(block.residual).__name__}, a residual rule")
    y = build.register(build.width(x))
    for norm, layer in zip(block.residual.norms, block.sublayers, strict=True):
        if before:
            norm_rule.apply(norm, build, x, y)
            sublayer_rule.apply(layer, build, y, x, True)
        else:
            sublayer_rule.apply(layer, build, x, y, False)
            build.op("add", reads=[y], writes=[x])
            norm_rule.apply(norm, build, x, x)
    build.release(y)
    return x


@block_rule(ReversibleLayer)
def _(stack: ReversibleLayer, build: Builder, x: int) -> int:
    to, seen = _two_streams(stack.spec, build, x)
    y = build.register(build.width(to))
    blocks: Any = stack.blocks
    for block in blocks:
        for norm, layer, swaps in halves(block, stack.spec.last_swap):
            norm_rule.apply(norm, build, seen, y)
            sublayer_rule.apply(layer, build, y, to, True)
            to, seen = (seen, to) if swaps else (to, seen)
    build.release(y)
    if stack.spec.merge == "mean":
        build.op("mean", reads=[seen], writes=[to])
        build.release(seen)
        return to
    both = build.register(2 * build.width(to))
    build.op("concatenate", reads=[to, seen], writes=[both])
    build.release(to, seen)
    return both


def _two_streams(spec: Reversible, build: Builder, x: int) -> tuple[int, int]:
    """The first stream and the second: both x, or the two halves of it."""
    if spec.streams == "copied":
        second = build.register(build.width(x))
        build.op("copy", reads=[x], writes=[second], ints=[0])
        return x, second
    width = build.width(x) // 2
    streams = build.register(width), build.register(width)
    for number, stream in enumerate(streams):
        build.op("copy", reads=[x], writes=[stream], ints=[number * width])
    build.release(x)
    return streams


def halves(block: BlockLayer, last_swap: bool) -> Iterator[tuple[nn.Module, nn.Module, bool]]:
    """Each sublayer with the norm before it, and whether the streams change places behind it."""
    last = len(block.sublayers) - 1
    for number, (norm, layer) in enumerate(zip(block.residual.norms, block.sublayers, strict=True)):
        yield norm, layer, number < last or last_swap


@block_rule(RecomputedLayer)
def _(stack: RecomputedLayer, build: Builder, x: int) -> int:
    for block in stack.blocks:
        x = block_rule.apply(block, build, x)
    return x


@block_rule(AfterEncoderLayer)
def _(layer: AfterEncoderLayer, build: Builder, x: int) -> int:
    y = build.register(layer.streams * build.width(x))
    build.op("enter", reads=[x], writes=[y])
    build.release(x)
    build.forget()
    for block in layer.blocks:
        y = block_rule.apply(block, build, y)
    return y


@block_rule(LinearLayer)
def _(layer: LinearLayer, build: Builder, x: int) -> int:
    y = build.register(layer.proj.out_features)
    linear(build, x, y, layer.proj)
    build.release(x)
    return y


@sublayer_rule(ParallelLayer)
def _(parallel: ParallelLayer, build: Builder, x: int, into: int, add: bool) -> None:
    y = build.register(build.width(x))
    for number, (norm, layer) in enumerate(zip(parallel.norms, parallel.layers, strict=True)):
        plain = type(norm) is nn.Identity
        if not plain:
            norm_rule.apply(norm, build, x, y)
        sublayer_rule.apply(layer, build, x if plain else y, into, add or number > 0)
    build.release(y)


@sublayer_rule(MLPLayer)
def _(layer: MLPLayer, build: Builder, x: int, into: int, add: bool) -> None:
    hidden = build.register(layer.spec.hidden)
    linear(build, x, hidden, layer.up, activation=layer.spec.activation)
    linear(build, hidden, into, layer.down, add=add)
    build.release(hidden)


@sublayer_rule(GLULayer)
def _(layer: GLULayer, build: Builder, x: int, into: int, add: bool) -> None:
    both, hidden = build.register(2 * layer.spec.hidden), build.register(layer.spec.hidden)
    linear(build, x, both, layer.gate, layer.up)
    build.op("gate", reads=[both], writes=[hidden], ints=[activation_number(layer.spec.activation)])
    linear(build, hidden, into, layer.down, add=add)
    build.release(both, hidden)
