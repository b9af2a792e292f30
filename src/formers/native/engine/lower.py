"""Lowering: a built decoder as a program for the native engine. Each kind of part has its rule, here or in lower_*.py."""

import functools
from typing import Any

import torch
from torch import Tensor, nn

from formers.embedding import EmbeddingLayer
from formers.encoder_decoder import EncoderDecoderLayer
from formers.errors import ConfigError, NoRuleError
from formers.feedforward import ACTIVATIONS
from formers.head import MaskedLMLayer, TiedLayer, UntiedLayer
from formers.model import Decoder, TokenLayer
from formers.native.engine import (  # noqa: F401 - they bring rules
    lower_attention,
    lower_depth,
    lower_exits,
    lower_kernel,
    lower_places,
    lower_repeated,
    lower_sparse,
)
from formers.native.engine.build import Builder, linear
from formers.native.engine.program import Program
from formers.native.engine.rules import block_rule, head_rule, norm_rule, place_rule
from formers.native.engine.weights import TYPES

_NAMES = {function: name for name, function in ACTIVATIONS.items()}


def lower(model: nn.Module, dtype: str = "fp32") -> Program:
    """The program of a decoder, or of the target side of an encoder-decoder, its weights packed in memory.

    dtype: of the weights, 'fp32', 'bf16', 'int8' or 'int4'; activations are fp32. A model on the `meta` device gets
    random weights. Raises NoRuleError, naming it, for a part that the engine does not know, and ConfigError for weights
    that cannot be packed like this.
    """
    return outline(model, dtype).packed()


def outline(model: nn.Module, dtype: str = "fp32") -> Program:
    """The same, but for the weights, which are only packed when it is saved: one by one, and never all in memory."""
    if dtype not in TYPES:
        raise ConfigError(f"weights can be {', '.join(TYPES)}, not {dtype!r}")
    decoder: Any = model.target if type(model) is EncoderDecoderLayer else model
    if type(decoder) is not TokenLayer or not isinstance(decoder.spec, Decoder) or decoder.head is None:
        raise NoRuleError(f"the native engine decodes, and {type(model).__name__} is no decoder with a head")
    spec = decoder.spec
    # what a decoder may begin with, an encoder's output, has positions too
    build = Builder(dtype, spec.max_length if decoder is model else None)
    with build.within("EmbeddingLayer"):
        x = _embed(decoder.embedding, build)
    build.read = functools.partial(_read, decoder, build)
    for block in decoder.stack.blocks:
        x = block_rule.apply(block, build, x)
    build.op("pick", writes=[x])
    logits = build.read(x, x)
    whole: Any = model.spec
    return build.program(spec.name, whole.to_json(), spec.vocab, spec.max_length, logits)


def _read(decoder: Any, build: Builder, x: int, into: int) -> int:
    """From the stream to the register of the logits, by way of another where it is normed; they may be the same."""
    if decoder.norm is not None:
        norm_rule.apply(decoder.norm, build, x, into)
        x = into
    logits: int = head_rule.apply(decoder.head, build, x, decoder.embedding.tokens.weight)
    return logits


def _embed(layer: nn.Module, build: Builder) -> int:
    if type(layer) is not EmbeddingLayer:
        raise NoRuleError(f"the native engine has no rule for {type(layer).__name__}, an embedding")
    x = build.register(layer.tokens.embedding_dim)
    segment = None if layer.segments is None else layer.segments.weight[0]
    table, added = build.matrix(layer.tokens.weight), build.vector(segment)
    build.op("embed", writes=[x], floats=[layer.scale], matrices=[table], vectors=[added])
    if layer.position is not None:
        place_rule.apply(layer.position, build, x)
    if layer.norm is not None:
        norm_rule.apply(layer.norm, build, x, x)
    return x


@norm_rule(nn.LayerNorm)
def _(norm: nn.LayerNorm, build: Builder, x: int, into: int) -> None:
    _norm(norm, 0, norm.eps, build, x, into)


@norm_rule(nn.RMSNorm)
def _(norm: nn.RMSNorm, build: Builder, x: int, into: int) -> None:
    _norm(norm, 1, torch.finfo(torch.float32).eps if norm.eps is None else norm.eps, build, x, into)


def _norm(norm: Any, kind: int, eps: float, build: Builder, x: int, into: int) -> None:
    vectors = [build.vector(norm.weight), build.vector(getattr(norm, "bias", None))]
    build.op("norm", reads=[x], writes=[into], ints=[kind], floats=[eps], vectors=vectors)


@norm_rule(nn.Identity)
def _(norm: nn.Identity, build: Builder, x: int, into: int) -> None:
    if x != into:
        build.op("copy", reads=[x], writes=[into], ints=[0])


@head_rule(TiedLayer)
def _(head: TiedLayer, build: Builder, x: int, table: Tensor) -> int:
    return _logits(build, x, table, head.bias)


@head_rule(UntiedLayer)
def _(head: UntiedLayer, build: Builder, x: int, table: Tensor) -> int:
    return _logits(build, x, head.proj.weight, head.proj.bias)


@head_rule(MaskedLMLayer)
def _(head: Any, build: Builder, x: int, table: Tensor) -> int:
    y = build.register(build.width(x))
    linear(build, x, y, head.proj, activation=_NAMES[head.activation])
    norm_rule.apply(head.norm, build, y, y)
    return _logits(build, y, table, head.bias)


def _logits(build: Builder, x: int, weight: Tensor, bias: Tensor | None) -> int:
    logits = build.register(len(weight))
    matrices, vectors = [build.matrix(weight)], [build.vector(bias)]
    build.op("linear", reads=[x], writes=[logits], ints=[0, 0, 0, 0], matrices=matrices, vectors=vectors)
    return logits
