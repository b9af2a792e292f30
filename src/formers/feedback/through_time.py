"""All tokens of a call through all layers, with the gradient written by hand.

Autograd would add up the gradient of every weight token by token, as large as the weight each time, and grow keys by copies.
Here the way back goes through the tokens once for the gradients of what was computed, and those of the weights are one
product over all tokens each. Keys and values get their gradients from all layers of a token together.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from formers.feedback import one_layer
from formers.feedback.one_layer import Drops, Gradients, Kept, Normed, Sizes, Weights, Window

EACH = 10  # tensors that a layer's `Weights` hold


class Shared(NamedTuple):
    """What all layers share: k and v (W, M), distances (reach, D), the furthest first, shares (layers + 1), and the norm of
    memories, where they have one."""

    k: Tensor
    v: Tensor
    distances: Tensor
    shares: Tensor
    gain: Tensor | None
    shift: Tensor | None

    @property
    def normed(self) -> Normed | None:
        return None if self.gain is None else Normed(self.gain, self.shift)


class Run(NamedTuple):
    """What is no tensor that a gradient goes to. real: (B, S) bool, which of the first memories there are, or None: all.
    drops: for each layer, of attention and feed-forward, (T, B, M) or None."""

    sizes: Sizes
    real: Tensor | None
    drops: tuple[tuple[Tensor | None, Tensor | None], ...]

    def window(self, k: Tensor, v: Tensor, distances: Tensor, end: int) -> Window:
        """What the token meets whose own memory will stand in slot `end` of k and v (B H, S + T, D)."""
        start = max(0, end - self.sizes.reach)
        real, rows = None, distances[self.sizes.reach - (end - start) :]
        if self.real is not None and start < self.real.shape[1]:
            real = self.real.new_ones(len(self.real), end - start)
            known = self.real[:, start:]
            real[:, : known.shape[1]] = known
            real = real.repeat_interleave(self.sizes.heads, 0)[:, None]
        return Window(k[:, start:end], v[:, start:end], rows, real)

    def drop(self, layer: int, t: int) -> Drops:
        first, second = self.drops[layer]
        return Drops(None if first is None else first[t], None if second is None else second[t])


def weights_of(flat: tuple[Any, ...]) -> list[Weights]:
    """The weights of each layer, which came one after another."""
    each = (flat[i : i + EACH] for i in range(0, len(flat), EACH))
    return [
        Weights(q, out, up, up_bias, down, down_bias, Normed(*norms[:2]), Normed(*norms[2:]))
        for q, out, up, up_bias, down, down_bias, *norms in each
    ]


class ThroughTime(torch.autograd.Function):
    """(run, x (T, B, M), past k and v (B H, S, D), the tensors of `Shared`, those of each layer's `Weights`) -> what comes out
    (T, B, M), and k and v (B H, S + T, D)."""

    @staticmethod
    def forward(
        ctx: Any, run: Run, x: Tensor, past_k: Tensor, past_v: Tensor, *flat: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        shared, layers = Shared(*flat[:6]), weights_of(flat[6:])
        before, slots = past_k.shape[1], past_k.shape[1] + len(x)
        k, v = (past.new_empty(past.shape[0], slots, past.shape[2]) for past in (past_k, past_v))
        k[:, :before], v[:, :before] = past_k, past_v
        kept: list[list[Kept]] = [[] for _ in layers]
        met, memories, out = [], [], torch.empty_like(x)
        for t, h in enumerate(x):
            window, streams, weights = run.window(k, v, shared.distances, before + t), [h], []
            for number, layer in enumerate(layers):
                h, keep, weight = one_layer.forward(run.sizes, layer, h, window, run.drop(number, t))
                kept[number].append(keep)
                streams.append(h)
                weights.append(weight)
            out[t] = h
            memory = torch.stack(streams, -1) @ shared.shares
            made = memory if shared.normed is None else one_layer.norm(memory, shared.normed, run.sizes.eps)[0]
            k[:, before + t], v[:, before + t] = ((made @ w.mT).view_as(k[:, 0]) for w in (shared.k, shared.v))
            memories.append(memory)
            met.append(torch.cat(weights, 1))
        stacked = [torch.stack(some) for some_kept in kept for some in zip(*some_kept, strict=True)]
        ctx.run, ctx.counts = run, (len(flat), len(layers), len(stacked))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*flat, k, v, out, torch.stack(memories), *stacked, *met)
        return out, k, v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor | None, g_k: Tensor | None, g_v: Tensor | None) -> tuple[Tensor | None, ...]:
        run, (flat, layers, stacked) = ctx.run, ctx.counts
        saved = ctx.saved_tensors
        rest = saved[flat + 4 :]
        each = stacked // layers
        kept = [Kept(*rest[i : i + each]) for i in range(0, stacked, each)]
        back = _WayBack(run, Shared(*saved[:6]), weights_of(saved[6:flat]), kept, rest[stacked:])
        return (None, *back.gradients(*saved[flat : flat + 4], g, g_k, g_v))


class Token(NamedTuple):
    """Gradients of one token of each row: of its key and value (B, W), of its memory, of that behind its norm, and of what
    came in, (B, M)."""

    k: Tensor
    v: Tensor
    memory: Tensor
    normed: Tensor
    x: Tensor


class _WayBack:
    """From the gradients of what came out to those of all that went in; kept: (T, B, anything) for each layer."""

    def __init__(
        self, run: Run, shared: Shared, layers: list[Weights], kept: list[Kept], met: tuple[Tensor, ...]
    ) -> None:
        self.run, self.shared, self.layers, self.kept, self.met = run, shared, layers, kept, met
        self.by_token = [
            [Kept(*some) for some in zip(*(part.unbind(0) for part in keep), strict=True)] for keep in kept
        ]
        self.made: list[list[Gradients]] = [[] for _ in layers]  # the last token first

    def gradients(
        self, k: Tensor, v: Tensor, out: Tensor, memories: Tensor, *given: Tensor | None
    ) -> list[Tensor | None]:
        """Of x, past k and v, what is shared, and each layer's weights; given: those of what came out, and of k and v."""
        g, *of_later = given
        length, before = len(out), k.shape[1] - len(out)
        of_k, of_v = (
            torch.zeros_like(some) if later is None else later.clone()
            for some, later in zip((k, v), of_later, strict=True)
        )
        of_distances = torch.zeros_like(self.shared.distances)
        normed, eps, tokens = self.shared.normed, self.run.sizes.eps, []
        keyed, mean, scale = (memories,) * 3 if normed is None else one_layer.norm(memories, normed, eps)
        for t in reversed(range(length)):
            key, value = (some[:, before + t].reshape(out.shape[1], -1) for some in (of_k, of_v))
            memory = into = key @ self.shared.k + value @ self.shared.v
            if normed is not None:
                memory = one_layer.norm_backward(into, memories[t], mean[t], scale[t], normed)
            last = memory * self.shared.shares[-1]
            window = self.run.window(k, v, self.shared.distances, before + t)
            x = self._token(t, last if g is None else last + g[t], memory, window)
            self._memories(t, of_k[:, : before + t], of_v[:, : before + t], of_distances)
            tokens.append(Token(key, value, memory, into, x))
        of = Token(*(torch.stack(some[::-1]) for some in zip(*tokens, strict=True)))
        return [
            of.x,
            of_k[:, :before],
            of_v[:, :before],
            *self._shared(of, of_distances, keyed, mean, scale, memories, out),
        ]

    def _token(self, t: int, g: Tensor, memory: Tensor, window: Window) -> Tensor:
        """From the gradient of what came out of the last layer, and that of the memory, to that of what went in."""
        for number in reversed(range(len(self.layers))):
            weights, drops = self.met[t][:, number : number + 1], self.run.drop(number, t)
            kept, layer = self.by_token[number][t], self.layers[number]
            g, made = one_layer.backward(self.run.sizes, layer, g, kept, weights, window, drops)
            g = torch.addcmul(g, memory, self.shared.shares[number])
            self.made[number].append(made)
        return g

    def _memories(self, t: int, k: Tensor, v: Tensor, distances: Tensor) -> None:
        """Adds to the gradients of the keys and values before token t what the queries of all layers have made of them."""
        made, weights = [of[-1] for of in self.made], self.met[t]
        count = weights.shape[2]
        scores, heads = (torch.cat(some, 1) for some in zip(*((of.scores, of.heads) for of in made), strict=True))
        q = torch.cat([of[t].q.reshape_as(one.heads) for of, one in zip(self.by_token, made, strict=True)], 1)
        k[:, k.shape[1] - count :].baddbmm_(scores.mT, q)
        v[:, v.shape[1] - count :].baddbmm_(weights.mT, heads)
        distances[len(distances) - count :].addmm_(scores.flatten(0, 1).mT, q.flatten(0, 1))

    def _shared(self, of: Token, distances: Tensor, *memory: Tensor) -> list[Tensor | None]:
        """The gradients of what is shared, and of each layer's weights."""
        keyed, mean, scale, memories, out = (part.flatten(0, 1) for part in memory)
        of = Token(*(part.flatten(0, 1) for part in of))
        normed, norms, found = self.shared.normed, list[Tensor | None]([None, None]), list[Tensor | None]()
        if normed is not None:
            norms = list(one_layer.norm_weight_gradients(of.normed, memories, mean, scale, normed))
        streams = [keep.h.flatten(0, 1) for keep in self.kept] + [out]
        shares = torch.stack([(of.memory * stream).sum() for stream in streams])
        for w, keep, some in zip(self.layers, self.kept, self.made, strict=True):
            flat = Kept(*(part.flatten(0, 1) for part in keep))
            every = Gradients(*some[0][:2], *(torch.cat(part[::-1]) for part in list(zip(*some, strict=True))[2:]))
            found += one_layer.weight_gradients(self.run.sizes, w, flat, every)
        return [of.k.mT @ keyed, of.v.mT @ keyed, distances, shares, *norms, *found]
