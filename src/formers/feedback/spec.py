"""The Feedback Transformer's depth: layers that attend to memories of past tokens, made of what all layers made of them."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from formers.attention.layer import head_problems, heads_inside
from formers.attention.project import split_heads
from formers.call import Call, Layer, Out
from formers.feedback.by_hand import has_gradient_by_hand, through_time
from formers.feedback.memories import Memories, Rows
from formers.feedback.reader import Met, Reader
from formers.feedforward import FeedForward
from formers.products import Matrix
from formers.residual import PostNorm, Residual
from formers.spec.core import Site
from formers.state import Log


class Feedback(Layer):
    """`depth` layers of attention and feed-forward whose keys and values come from one memory. Fan et al. 2020,
    arXiv:2002.09402.

        m_t = sum over l = 0 .. depth of softmax(w)_l x_t^l        x^0 is what comes in, x^l the output of layer l
        layer l at t attends to m_(t - reach) .. m_(t - 1):        score q_t (W_K m_s + r_(t - s)) / sqrt(D), value W_V m_s

    W_K, W_V, the vectors r of the distances 1 .. reach and the weights w belong to all layers, so keys and values are made
    once a token, and a token costs the same however many came before. What a token's own layers make of it reaches later
    tokens only; the first one has nothing to attend to, and attention gives it zeros. Tokens are gone through one by one,
    in training too, and gradients go back through all of a call. Queries, keys, values and outputs have no bias.

    Its state is the keys and values of the last `reach` tokens. Differs from the released code: that one begins with
    `reach` memories of zeros, which take part in the softmax; it cuts gradients between segments and makes keys of earlier
    ones anew; with a PreNorm, it norms memories as its layers norm their inputs, by one norm for all of them, and here
    they have a norm of their own, by which they become keys and values; dropout is where `residual` has it.
    """

    depth: int
    heads: int
    feed_forward: FeedForward
    reach: int = 256
    head_dim: int | None = None
    residual: Residual = PostNorm()
    carries: ClassVar[bool] = True

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from head_problems(self.heads, None, self.head_dim, site)
        if self.depth < 1:
            yield f"{self.depth} layers make nothing that could be remembered", "depth=4"
        if self.reach < 1:
            yield f"layers that look {self.reach} tokens back never meet a memory", "reach=256"
        if not site.causal:
            what = "memories are of tokens that came before, and an encoder's tokens see those behind them too"
            yield what, "Attention(heads=8), or a Decoder"

    def build(self, site: Site) -> nn.Module:
        return FeedbackLayer(self, site)


class FeedbackLayer(nn.Module):
    def __init__(self, spec: Feedback, site: Site) -> None:
        super().__init__()
        self.spec = spec
        self.head_dim = heads_inside(site, spec.heads, None, spec.head_dim).head_dim
        wide = spec.heads * self.head_dim
        self.layers = nn.ModuleList(Reader(spec, site.part(i), self.head_dim) for i in range(spec.depth))
        before = not isinstance(spec.residual, PostNorm)  # then streams grow from layer to layer, and so would memories
        self.norm = spec.residual.norm.build(site) if before else nn.Identity()
        self.k_proj, self.v_proj = (Matrix(site.dim, wide, bias=False) for _ in range(2))
        self.distances = nn.Embedding(spec.reach, self.head_dim)  # the furthest first, as memories stand
        self.shares = nn.Parameter(torch.zeros(spec.depth + 1))
        self.by_hand = has_gradient_by_hand(spec)

    def forward(self, x: Tensor, call: Call, state: Memories | None = None, choices: Any = None) -> Out:
        rows = None if call.at.real is None else Rows.of(call.at.real)
        y, after = self._run(x if rows is None else rows.gathered(x), call, state or self._nothing(x))
        if rows is not None:
            y = rows.spread(y)
            after = after.aligned(rows.surplus) if call.remember else after
        return Out(y, after.last(self.spec.reach) if call.remember else None)

    def _nothing(self, x: Tensor) -> Memories:
        k, v = (Log(x.new_empty(len(x), self.spec.heads, 0, self.head_dim)) for _ in range(2))
        return Memories(k, v)

    def _run(self, x: Tensor, call: Call, past: Memories) -> tuple[Tensor, Memories]:
        """x (B, T, M), every row's tokens from the first column on -> what comes out (B, T, M), and all memories."""
        if self.by_hand and torch.is_grad_enabled() and not torch.is_autocast_enabled(x.device.type):
            return through_time(self, x, past)
        outputs, shares = [], self.shares.softmax(0)
        for token in x.split(1, 1):
            met = self._met(past)
            streams = [token]
            for layer in self.layers:
                streams.append(layer(streams[-1], met, call))
            k, v = self._memory(streams, shares)
            past = past.extend(k, v)
            outputs.append(streams[-1])
        return torch.cat(outputs, 1), past

    def _met(self, past: Memories) -> Met:
        near = past.last(self.spec.reach)
        slots = len(near.k)
        real = None if near.real is None else near.real[:, None, None]
        return Met(near.k.view, near.v.view, self.distances.weight[self.spec.reach - slots :], real)

    def _memory(self, streams: list[Tensor], shares: Tensor) -> tuple[Tensor, Tensor]:
        """The key and the value (B, H, 1, D) of one token, from what came in and every layer's output (B, 1, M)."""
        memory = self.norm(torch.stack(streams, -1) @ shares)
        return split_heads(self.k_proj(memory), self.head_dim), split_heads(self.v_proj(memory), self.head_dim)
