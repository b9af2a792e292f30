"""A decoder as a straight line of operations, for one row and one token at a time.

The arithmetic is that of the modules, on their own parameters; what is left out is everything that a single unpadded
row does not need: module calls, masks, transposes, places, states. Parts that it has no rule for are named, and the
modules go on as before.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.attention.layer import AttentionLayer
from formers.attention.pattern import Both, Causal, Pattern, Window
from formers.attention.project import DenseLayer
from formers.block import BlockLayer
from formers.decode.order import Order, added, order_of
from formers.embedding import EmbeddingLayer
from formers.errors import NoRuleError
from formers.feedforward import GLULayer, MLPLayer
from formers.head import TiedLayer, UntiedLayer
from formers.memory import KeepAllRule, KeysValues
from formers.model import ModelState, TokenLayer
from formers.places import Places
from formers.position.absolute import refuse_past_end
from formers.residual import PostNormRule, PreNormRule
from formers.state import Log

# Tokens that caches have room for before they move.
ROOM = 1024

Operation = Callable[[Tensor, int], Tensor]


class Cache(NamedTuple):
    """Keys and values (K, S, D) of one layer: row i stands at position first + i."""

    k: Tensor
    v: Tensor
    first: int


class Straight:
    """Gives the logits of one token after another, as `model.step` would."""

    def __init__(self, model: nn.Module, state: Any, room: int = ROOM) -> None:
        """state: of one row without padding. Raises NoRuleError where the model or the state cannot be run like this."""
        if type(model) is not TokenLayer or model.embedding.segments is not None or state is None:
            raise NoRuleError(f"{type(model).__name__} is not decoded in a straight line")
        if not isinstance(state.seen, int):
            raise NoRuleError("a padded row is not decoded in a straight line")
        if type(model.embedding) is not EmbeddingLayer:
            raise NoRuleError(f"{type(model.embedding).__name__} has no rule")
        limit = model.spec.max_length
        self._model, self._place, self._room = model, state.seen, room
        self._end = state.seen + room if limit is None else min(state.seen + room, limit)
        self._places = Places.run(state.seen, self._end - state.seen, model.embedding.tokens.weight.device)
        self._caches: list[list[Cache | None]] = []
        self._embed = _embedding(model, self._places)
        self._line: list[Operation] = []
        for block, past in zip(model.stack.blocks, state.blocks, strict=True):
            self._line += self._block(block, past)
        self._finish = _finish(model)

    def __call__(self, token: Tensor) -> Tensor:
        """The logits (1, V) after token (1, 1) int64."""
        if self._place == self._end:
            refuse_past_end(Places.run(self._place, 1), self._model.spec.max_length or self._place + 1)
            self.__init__(self._model, self.state(), 2 * self._room)  # type: ignore[misc]
        place = self._place
        x = self._embed(token[0], place)
        for operation in self._line:
            x = operation(x, place)
        self._place += 1
        return self._finish(x)

    def state(self) -> ModelState:
        """What the model's own `step` would have left."""
        return ModelState(self._place, tuple(tuple(self._kept(cache) for cache in row) for row in self._caches))

    def _kept(self, cache: Cache | None) -> KeysValues | None:
        if cache is None:
            return None
        length = self._place - cache.first
        k, v = (Log(t[None, :, :length]) for t in (cache.k, cache.v))
        return KeysValues(k, v, Places.run(cache.first, length, cache.k.device))

    def _block(self, block: nn.Module, past: Any) -> list[Operation]:
        if type(block) is not BlockLayer or type(block.residual) not in (PreNormRule, PostNormRule):
            raise NoRuleError(f"{type(getattr(block, 'residual', block)).__name__} has no rule")
        before = type(block.residual) is PreNormRule
        line, caches = [], []
        for norm, layer, kept in zip(block.residual.norms, block.sublayers, past, strict=True):
            sublayer, cache = self._sublayer(layer, kept)
            caches.append(cache)
            line.append(_before(_norm(norm), sublayer) if before else _after(_norm(norm), sublayer))
        self._caches.append(caches)
        return line

    def _sublayer(self, layer: nn.Module, past: Any) -> tuple[Operation, Cache | None]:
        if type(layer) is MLPLayer:
            return _mlp(layer), None
        if type(layer) is GLULayer:
            return _glu(layer), None
        if type(layer) is not AttentionLayer:
            raise NoRuleError(f"{type(layer).__name__} has no rule")
        for part, kind in ((layer.projection, DenseLayer), (layer.memory, KeepAllRule), (layer.select, type(None))):
            if type(part) is not kind:
                raise NoRuleError(f"{type(part).__name__} has no rule")
        if past.places.start is None or past.places.marks or len(past.k.view) != 1:
            raise NoRuleError("a padded, marked or batched row is not decoded in a straight line")
        cache = Cache(_with_room(past.k.view[0], self._room), _with_room(past.v.view[0], self._room), past.places.start)
        return _attention(layer, cache, order_of(layer.position, self._places, cache.k.dtype)), cache


def _embedding(model: TokenLayer, places: Places) -> Operation:
    layer = model.embedding
    table, scale = layer.tokens.weight, layer.scale
    place = added(layer.position, places, table.dtype)
    norm = None if layer.norm is None else _norm(layer.norm)

    def embed(token: Tensor, n: int) -> Tensor:
        x = F.embedding(token, table)
        x = x * scale if scale != 1.0 else x
        x = x if place is None else x + place(n)
        return x if norm is None else norm(x)

    return embed


def _finish(model: TokenLayer) -> Callable[[Tensor], Tensor]:
    head = model.head
    norm = None if model.norm is None else _norm(model.norm)
    if type(head) is TiedLayer:
        weight, bias = model.embedding.tokens.weight, head.bias
    elif type(head) is UntiedLayer:
        weight, bias = head.proj.weight, head.proj.bias
    else:
        raise NoRuleError(f"{type(head).__name__} has no rule")
    return lambda x: F.linear(x if norm is None else norm(x), weight, bias)


def _norm(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    if type(norm) is nn.LayerNorm:
        shape, weight, bias, eps = norm.normalized_shape, norm.weight, norm.bias, norm.eps
        return lambda x: torch.layer_norm(x, shape, weight, bias, eps)
    if type(norm) is nn.RMSNorm:
        rms_shape, gain, rms_eps = norm.normalized_shape, norm.weight, norm.eps
        return lambda x: torch.rms_norm(x, rms_shape, gain, rms_eps)
    raise NoRuleError(f"{type(norm).__name__} has no rule")


def _before(norm: Callable[[Tensor], Tensor], sublayer: Operation) -> Operation:
    return lambda x, n: x + sublayer(norm(x), n)


def _after(norm: Callable[[Tensor], Tensor], sublayer: Operation) -> Operation:
    return lambda x, n: norm(x + sublayer(x, n))


def _mlp(layer: MLPLayer) -> Operation:
    up, up_bias, down, down_bias = layer.up.weight, layer.up.bias, layer.down.weight, layer.down.bias
    activation = layer.activation
    return lambda x, n: F.linear(activation(F.linear(x, up, up_bias)), down, down_bias)


def _glu(layer: GLULayer) -> Operation:
    gate, up, down, activation = layer.gate, layer.up, layer.down, layer.activation
    g, gb, u, ub, d, db = gate.weight, gate.bias, up.weight, up.bias, down.weight, down.bias
    return lambda x, n: F.linear(activation(F.linear(x, g, gb)) * F.linear(x, u, ub), d, db)


def _attention(layer: AttentionLayer, cache: Cache, order: Order) -> Operation:
    projection: Any = layer.projection
    scale, width = layer.scale, _window(layer.pattern)
    q_proj, k_proj, v_proj, out_proj = projection.q_proj, projection.k_proj, projection.v_proj, projection.out_proj
    wq, bq, wk, bk, wv, bv = q_proj.weight, q_proj.bias, k_proj.weight, k_proj.bias, v_proj.weight, v_proj.bias
    wo, bo, head_dim = out_proj.weight, out_proj.bias, projection.head_dim
    keys, values, first = cache
    kv_heads, turn, bias = len(keys), order.turn, order.bias

    def attend(x: Tensor, n: int) -> Tensor:
        q, k = F.linear(x, wq, bq).view(-1, head_dim), F.linear(x, wk, bk).view(-1, head_dim)
        if turn is not None:
            q, k = turn(q, n), turn(k, n)
        slot = n - first
        keys.select(1, slot).copy_(k)
        values.select(1, slot).copy_(F.linear(x, wv, bv).view(-1, head_dim))
        count = slot + 1 if width is None else min(width, slot + 1)
        k, v = keys.narrow(1, slot + 1 - count, count), values.narrow(1, slot + 1 - count, count)
        # the query heads that share a key head are rows of one small attention
        mask = None if bias is None else bias[:, bias.shape[1] - count :].view(1, kv_heads, -1, count)
        out = F.scaled_dot_product_attention(q.view(1, kv_heads, -1, head_dim), k[None], v[None], mask, scale=scale)
        return F.linear(out.view(1, -1), wo, bo)

    return attend


def _window(pattern: Pattern) -> int | None:
    """How many of the last keys are seen; None: all."""
    if type(pattern) is Causal:
        return None
    if type(pattern) is Both and type(pattern.left) is Causal and type(pattern.right) is Window:
        return pattern.right.size
    raise NoRuleError(f"{pattern!r} has no rule")


def _with_room(cache: Tensor, room: int) -> Tensor:
    heads, length, width = cache.shape
    roomy = cache.new_empty(heads, length + room, width)
    roomy[:, :length] = cache
    return roomy
