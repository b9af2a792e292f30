"""From the modules of a feedback layer to the tensors of `ThroughTime`, and back."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from formers.feedback.memories import Memories
from formers.feedback.one_layer import Sizes
from formers.feedback.through_time import Run, ThroughTime
from formers.feedforward import MLP
from formers.norm import LayerNorm
from formers.residual import PostNorm, PreNorm
from formers.state import Log

if TYPE_CHECKING:
    from formers.feedback.spec import Feedback, FeedbackLayer


def has_gradient_by_hand(spec: "Feedback") -> bool:
    """Whether the parts are those that `ThroughTime` knows; others run as modules, and autograd finds their gradient."""
    known = type(spec.residual) in (PreNorm, PostNorm) and type(spec.residual.norm) is LayerNorm
    return known and type(spec.feed_forward) is MLP and not spec.feed_forward.dropout


def through_time(layer: "FeedbackLayer", x: Tensor, past: Memories) -> tuple[Tensor, Memories]:
    """x (B, T, M) -> what comes out (B, T, M), and the memories of these tokens behind those of the past."""
    spec, batch = layer.spec, len(x)
    sizes = Sizes(
        spec.heads,
        layer.head_dim,
        spec.reach,
        type(spec.residual) is PreNorm,
        spec.residual.norm.eps,
        spec.feed_forward.activation,
    )
    tokens = x.transpose(0, 1).contiguous()
    run = Run(sizes, past.real, tuple(_drops(layer, tokens) for _ in layer.layers))
    memory = [getattr(layer.norm, name, None) for name in ("weight", "bias")]
    shared = [layer.k_proj.weight, layer.v_proj.weight, layer.distances.weight, layer.shares.softmax(0), *memory]
    flat = [tensor for each in layer.layers for tensor in _weights(each, layer.head_dim**-0.5)]
    logs = (log.view.flatten(0, 1) for log in (past.k, past.v))
    y, k, v = ThroughTime.apply(run, tokens, *logs, *shared, *flat)
    k, v = (made.unflatten(0, (batch, spec.heads)) for made in (k, v))
    real = past.real
    if real is not None:
        real = torch.cat([real, real.new_ones(batch, len(tokens))], 1)
    return y.transpose(0, 1), Memories(Log(k), Log(v), real)


def _weights(reader: Any, scale: float) -> list[Tensor | None]:
    """Those of one layer, in the order of `Weights`; queries come out scaled."""
    feed, norms = reader.feed_forward, reader.residual.norms
    return [
        reader.q_proj.weight * scale,
        reader.out_proj.weight,
        feed.up.weight,
        feed.up.bias,
        feed.down.weight,
        feed.down.bias,
        *(tensor for norm in norms for tensor in (norm.weight, norm.bias)),
    ]


def _drops(layer: "FeedbackLayer", tokens: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """What a layer's two outputs are multiplied by: 0 at a rate, and else as much more as makes up for it."""
    rate = layer.spec.residual.dropout if layer.training else 0.0
    if not rate:
        return None, None
    first, second = (torch.empty_like(tokens).bernoulli_(1 - rate).div_(1 - rate) for _ in range(2))
    return first, second
