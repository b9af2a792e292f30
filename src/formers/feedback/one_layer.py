"""One layer at one token of each row, and the way back through it, by hand: what `through_time` is made of."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from formers.feedforward import ACTIVATIONS

ops: Any = torch.ops.aten

# From the gradient of an activation and what went into it to the gradient of that.
BACKWARD: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "relu": lambda g, u: ops.threshold_backward(g, u, 0),
    "gelu": lambda g, u: ops.gelu_backward(g, u),
    "gelu_tanh": lambda g, u: ops.gelu_backward(g, u, approximate="tanh"),
    "gelu_sigmoid": lambda g, u: g * _gelu_sigmoid_slope(u, torch.sigmoid(1.702 * u)),
    "silu": lambda g, u: ops.silu_backward(g, u),
}


def _gelu_sigmoid_slope(u: Tensor, sigmoid: Tensor) -> Tensor:
    return sigmoid * (1 + 1.702 * u * (1 - sigmoid))


class Sizes(NamedTuple):
    """heads, head_dim: of attention. before: the norms stand before the sublayers, not behind them."""

    heads: int
    head_dim: int
    reach: int
    before: bool
    eps: float
    activation: str


class Normed(NamedTuple):
    """A norm's parameters: both (M,), or None."""

    gain: Tensor
    shift: Tensor | None


class Weights(NamedTuple):
    """q (W, M), with the scale of the scores in it; out (M, W); up (F, M) and down (M, F); W = H D."""

    q: Tensor
    out: Tensor
    up: Tensor
    up_bias: Tensor | None
    down: Tensor
    down_bias: Tensor | None
    first: Normed
    second: Normed


class Window(NamedTuple):
    """The memories that are met: k, v (B H, n, D), distances (n, D), real (B H, 1, n) bool or None."""

    k: Tensor
    v: Tensor
    distances: Tensor
    real: Tensor | None


class Drops(NamedTuple):
    """What the outputs of attention and feed-forward are multiplied by, (B, M) each, or None: nothing is dropped."""

    first: Tensor | None = None
    second: Tensor | None = None


class Kept(NamedTuple):
    """What the way back needs: the input, queries, heads, the stream between the sublayers before any norm behind it, what
    goes into the activation, the stream behind the feed-forward before its norm, and what norms have measured."""

    h: Tensor
    q: Tensor
    heads: Tensor
    middle: Tensor
    u: Tensor
    end: Tensor
    mean1: Tensor
    scale1: Tensor
    mean2: Tensor
    scale2: Tensor


class Gradients(NamedTuple):
    """What the gradients of weights and memories are made of: those of what each product and each norm has put out,
    (B, anything), and those of the scores (B H, 1, n) and of the heads (B H, 1, D)."""

    scores: Tensor
    heads: Tensor
    q: Tensor
    out: Tensor
    up: Tensor
    down: Tensor
    first: Tensor
    second: Tensor


def norm(x: Tensor, normed: Normed, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The normed x (B, M), and the mean and the inverse deviation of each row."""
    made: tuple[Tensor, Tensor, Tensor] = torch.native_layer_norm(x, x.shape[-1:], normed.gain, normed.shift, eps)
    return made


def norm_backward(g: Tensor, x: Tensor, mean: Tensor, scale: Tensor, normed: Normed) -> Tensor:
    """The gradient of what was normed."""
    asked = [True, False, False]
    made: Tensor = ops.native_layer_norm_backward(g, x, x.shape[-1:], mean, scale, normed.gain, normed.shift, asked)[0]
    return made


def forward(sizes: Sizes, w: Weights, h: Tensor, met: Window, drops: Drops) -> tuple[Tensor, Kept, Tensor]:
    """h (B, M) -> the layer's output (B, M), what is kept, and the weights (B H, 1, n) of the memories."""
    y, mean1, scale1 = norm(h, w.first, sizes.eps) if sizes.before else (h, h, h)
    q = y @ w.q.mT
    heads, weights = attend(sizes, q, met)
    middle = h + _dropped(heads @ w.out.mT, drops.first)
    if sizes.before:
        y, mean2, scale2 = norm(middle, w.second, sizes.eps)
    else:
        y, mean1, scale1 = norm(middle, w.first, sizes.eps)
    u = _product(y, w.up, w.up_bias)
    made = _dropped(_product(ACTIVATIONS[sizes.activation](u), w.down, w.down_bias), drops.second)
    if sizes.before:
        out, end = middle + made, h[:0]  # nothing norms it here, and the next layer keeps it as its h
    else:
        end = y + made
        out, mean2, scale2 = norm(end, w.second, sizes.eps)
    return out, Kept(h, q, heads, middle, u, end, mean1, scale1, mean2, scale2), weights


def attend(sizes: Sizes, q: Tensor, met: Window) -> tuple[Tensor, Tensor]:
    """q (B, W) -> heads (B, W), and the weights (B H, 1, n): zeros where a row meets nothing."""
    each = q.view(-1, 1, sizes.head_dim)
    scores = torch.baddbmm((each[:, 0] @ met.distances.mT)[:, None], each, met.k.mT)
    if met.real is None:
        weights = scores.softmax(-1)
    else:
        weights = scores.masked_fill_(~met.real, torch.finfo(scores.dtype).min).softmax(-1) * met.real
    return torch.bmm(weights, met.v).view_as(q), weights


def backward(
    sizes: Sizes, w: Weights, g: Tensor, kept: Kept, weights: Tensor, met: Window, drops: Drops
) -> tuple[Tensor, Gradients]:
    """From the gradient g (B, M) of the output to that of h. weights: (B H, 1, n), of the memories."""
    second = g
    if not sizes.before:
        g = norm_backward(g, kept.end, kept.mean2, kept.scale2, w.second)
    down = _dropped(g, drops.second)
    up = BACKWARD[sizes.activation](down @ w.down, kept.u)
    into = up @ w.up
    if sizes.before:
        second, g = into, g + norm_backward(into, kept.middle, kept.mean2, kept.scale2, w.second)
    else:
        first = g + into
        g = norm_backward(first, kept.middle, kept.mean1, kept.scale1, w.first)
    out = _dropped(g, drops.first)
    heads = (out @ w.out).view(-1, 1, sizes.head_dim)
    scores: Tensor = ops._softmax_backward_data(torch.bmm(heads, met.v.mT), weights, -1, weights.dtype)
    q = torch.baddbmm((scores[:, 0] @ met.distances)[:, None], scores, met.k).view_as(kept.q)
    into = q @ w.q
    if sizes.before:
        first, into = into, norm_backward(into, kept.h, kept.mean1, kept.scale1, w.first)
    return g + into, Gradients(scores, heads, q, out, up, down, first, second)


def _dropped(x: Tensor, drop: Tensor | None) -> Tensor:
    return x if drop is None else x * drop


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x @ weight.mT if bias is None else torch.addmm(bias, x, weight.mT)


def weight_gradients(sizes: Sizes, w: Weights, kept: Kept, made: Gradients) -> tuple[Tensor | None, ...]:
    """The gradients of all that `Weights` hold, in their order, from kept and made of all tokens (N, anything)."""
    if sizes.before:
        of_q, of_up = norm(kept.h, w.first, sizes.eps)[0], norm(kept.middle, w.second, sizes.eps)[0]
        read = kept.h, kept.middle
    else:
        of_q, of_up = kept.h, norm(kept.middle, w.first, sizes.eps)[0]
        read = kept.middle, kept.end
    return (
        made.q.mT @ of_q,
        made.out.mT @ kept.heads,
        made.up.mT @ of_up,
        None if w.up_bias is None else made.up.sum(0),
        made.down.mT @ ACTIVATIONS[sizes.activation](kept.u),
        None if w.down_bias is None else made.down.sum(0),
        *norm_weight_gradients(made.first, read[0], kept.mean1, kept.scale1, w.first),
        *norm_weight_gradients(made.second, read[1], kept.mean2, kept.scale2, w.second),
    )


def norm_weight_gradients(
    g: Tensor, x: Tensor, mean: Tensor, scale: Tensor, normed: Normed
) -> tuple[Tensor, Tensor | None]:
    """The gradients of a norm's gain and shift, from g and x (N, M)."""
    asked = [False, True, normed.shift is not None]
    made = ops.native_layer_norm_backward(g, x, x.shape[-1:], mean, scale, normed.gain, normed.shift, asked)
    return made[1], made[2]
