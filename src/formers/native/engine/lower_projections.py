"""Rules for sparse projections of attention, and for sparse heads."""

from typing import Any

from torch import Tensor

from formers.attention.mult_conv import MultConvLayer
from formers.attention.own_keys import EPS
from formers.attention.sparse_cross import SparseQueriesLayer
from formers.attention.sparse_project import ConvolutionalLayer, FourAlikeLayer
from formers.native.engine.build import Builder
from formers.native.engine.rules import Heads, Slice, head_rule, output_rule, projection_rule, query_rule
from formers.native.engine.sparse_layers import convolutions, copy, outputs, product
from formers.sparse.convolution import ModuleConv
from formers.sparse.head import CutHead, MixedHead


@projection_rule(MultConvLayer)
def _(layer: MultConvLayer, build: Builder, x: int) -> Heads:
    dim, spec = build.width(x), layer.spec
    u, q, k, v = (build.register(dim) for _ in range(4))
    product(build, x, u, layer.mult)
    made, into = ([layer.q_conv], [q]) if layer.k_conv is None else ([layer.q_conv, layer.k_conv], [q, k])
    if spec.values == "none":
        convolutions(build, [u], [*into, v], [*made, layer.v_conv])
    else:
        convolutions(build, [u], into, made)
        _values(build, spec.values, u, x, v, layer.v_conv)
    if spec.share_qk == "average":
        build.op("mean", reads=[k], writes=[q])
    if spec.share_qk == "same":
        copy(build, q, k)
    elif spec.share_qk != "none":
        width = layer.head_dim
        build.op("unit", reads=[q], writes=[k], ints=[0, dim // width, width], floats=[EPS])
    build.release(u)
    return Heads(Slice(q), Slice(k), Slice(v))


def _values(build: Builder, kind: str, u: int, x: int, v: int, conv: ModuleConv) -> None:
    """Values that see the input, too."""
    if kind == "fixed":
        return convolutions(build, [u, x], [v], [conv])
    both = build.register(2 * build.width(x))
    build.op("concatenate", reads=[u, x], writes=[both])
    convolutions(build, [both], [v], [conv])
    build.release(both)


@projection_rule(ConvolutionalLayer)
def _(layer: ConvolutionalLayer, build: Builder, x: int) -> Heads:
    q, k, v = (build.register(build.width(x)) for _ in range(3))
    convolutions(build, [x], [q, k, v], [layer.q_conv, layer.k_conv, layer.v_conv])
    return Heads(Slice(q), Slice(k), Slice(v))


@projection_rule(FourAlikeLayer)
def _(layer: FourAlikeLayer, build: Builder, x: int) -> Heads:
    made = []
    for part in (layer.q_proj, layer.k_proj, layer.v_proj):
        made.append(Slice(build.register(outputs(part))))
        product(build, x, made[-1].register, part)
    return Heads(*made)


@query_rule(SparseQueriesLayer)
def _(layer: SparseQueriesLayer, build: Builder, x: int) -> Slice:
    u, q = build.register(build.width(x)), build.register(build.width(x))
    product(build, x, u, layer.mult)
    convolutions(build, [u], [q], [layer.q_conv])
    build.release(u)
    return Slice(q)


@output_rule(MultConvLayer, SparseQueriesLayer, ConvolutionalLayer)
def _(layer: Any, build: Builder, heads: int, into: int, add: bool) -> None:
    last = layer.out_mult if layer.out_proj is None else layer.out_proj
    if layer.out_conv is None:
        return copy(build, heads, into, add) if last is None else product(build, heads, into, last, add)
    if last is None:
        return convolutions(build, [heads], [into], [layer.out_conv], add)
    inner = build.register(build.width(into))
    product(build, heads, inner, last)
    convolutions(build, [inner], [into], [layer.out_conv], add)
    build.release(inner)


@output_rule(FourAlikeLayer)
def _(layer: FourAlikeLayer, build: Builder, heads: int, into: int, add: bool) -> None:
    product(build, heads, into, layer.out_proj, add)


@head_rule(CutHead)
def _(head: CutHead, build: Builder, x: int, table: Tensor) -> int:
    whole = build.register(outputs(head.proj))
    product(build, x, whole, head.proj)
    if build.width(whole) == head.vocab:
        return whole
    logits = build.register(head.vocab)
    copy(build, whole, logits)
    build.release(whole)
    return logits


@head_rule(MixedHead)
def _(head: MixedHead, build: Builder, x: int, table: Tensor) -> int:
    """The mixture is for training."""
    logits: int = head_rule.apply(head.sparse, build, x, table)
    return logits
