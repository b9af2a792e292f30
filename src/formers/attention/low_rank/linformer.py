"""Attention to slots: keys and values of all tokens, compressed along the sequence. Linformer, arXiv:2006.04768."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from formers.attention.backends import attend
from formers.attention.layer import head_problems, heads_inside
from formers.attention.low_rank.compress import Compressed, Compression, LinearSlots
from formers.attention.low_rank.laid import Laid, laid
from formers.attention.pattern import Everything
from formers.attention.project import Dense, split_heads
from formers.attention.request import Request
from formers.call import Call, Layer, Out
from formers.errors import FormersError
from formers.memory import KeysValues
from formers.places import Places
from formers.position.absolute import refuse_past_end
from formers.position.core import NoPosition
from formers.products import linear
from formers.residual import dropout_problems
from formers.spec.core import Site
from formers.state import Log


class SlotAttention(Layer):
    """What attention to slots is told, within one stream or across two. The numbers of `Linformer` are described there."""

    heads: int
    length: int = 512
    slots: int = 128
    compress: Compression = LinearSlots()
    head_dim: int | None = None
    projection: Dense = Dense()
    dropout: float = 0.0

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from head_problems(self.heads, None, self.head_dim, site)
        yield from dropout_problems(self.dropout)
        if self.length < 1:
            yield f"a text of {self.length} tokens cannot be read", "length=512"
        elif not 1 <= self.slots <= self.length:
            yield f"{self.length} positions cannot be compressed into {self.slots} slots", f"slots={self.length}"
        else:
            yield from self.compress.faults(self.length, self.slots)

    def inside(self, site: Site) -> Site:
        return heads_inside(site, self.heads, None, self.head_dim)


class Linformer(SlotAttention):
    """Attention to a fixed number of slots, into which the sequence is compressed. Wang et al. 2020, arXiv:2006.04768.

    softmax(Q (E K)^T / sqrt(D)) (F V), where E and F are (slots, length) and act along the sequence: T tokens cost
    O(T slots). Texts of any length up to `length` are read: position i meets column i, so that a shorter text is the
    beginning of a longer one, and padding counts as nothing, wherever it stands. It has no key that a mask could leave
    out, since every slot holds something of every token; so there is no causal form, and a decoder refuses it.

    heads, head_dim: as of attention. length: positions that can be read. slots: k of the paper; layers may have other
    numbers. compress: how tokens become slots, and what heads, keys and values share of it. dropout: rate at which
    attention weights are dropped.

    As in the paper, keys and values are projected and then compressed, biases included: a slot's bias is the sum of its
    row of E, over the tokens that are there, times that of the projection. Where E is one for all heads, the same is worked
    out the other way round, E (X W) = (E X) W, which projects `slots` rows in place of T. fairseq compresses before it
    projects, so that its slots carry the bias of the projection once each: its biases are to be read as another model's.
    """

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from super().problems(site)
        if site.causal:
            what = "a decoder must not see the future, and every slot that a query attends to is made of all tokens"
            yield what, f"Attention(heads={self.heads})"

    @property
    def max_length(self) -> int:
        return self.length

    def build(self, site: Site) -> nn.Module:
        return LinformerLayer(self, self.inside(site))


class LinformerCross(SlotAttention):
    """Attention to an encoder's output as slots: `Linformer` across two streams, with an E for positions of the source.

    The slots are made once and kept, so that a step of decoding costs the same however long the source is. `length`: of
    the source; the stream that asks may be of any length, and in a decoder.
    """

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from super().problems(site)
        if not site.encoder:
            mend = "put this decoder into an EncoderDecoder, or drop the LinformerCross"
            yield "there is no encoder to attend to", mend

    def source_dim(self, dim: int) -> int:
        return dim

    def build(self, site: Site) -> nn.Module:
        return LinformerCrossLayer(self, self.inside(site))


class SlotAttentionLayer(nn.Module):
    def __init__(self, spec: SlotAttention, site: Site) -> None:
        super().__init__()
        self.spec, self.head_dim, self.scale = spec, site.head_dim, site.head_dim**-0.5
        self.projection = spec.projection.build(site)
        self.compressor = spec.compress.build(site, spec.length, spec.slots)
        self.position = NoPosition().build(site)

    def slots(self, x: Tensor, at: Places, call: Call) -> tuple[Tensor, Tensor, Places]:
        """Keys and values (B, H, S, D) of the slots of x (B, T, M), and which of them hold anything, as places."""
        to: Laid = call.memo.once(("laid", at), lambda: laid(at))
        x = to.out(x)
        project: Any = self.projection
        if self.compressor.linear:
            of_keys, of_values = self.compressor.inputs(x, to)
            k, v = (
                split_heads(_projected(each, proj), self.head_dim)
                for each, proj in ((of_keys, project.k_proj), (of_values, project.v_proj))
            )
        else:
            k, v = project.keys_values(x)
            k, v = self.compressor.heads(k, v, to)
        held = self.compressor.held(to)
        if held is None:
            return k, v, Places.run(0, k.shape[2], k.device)
        key = ("slots", at, k.shape[2], self.spec.length // self.spec.slots)
        return k, v, call.memo.once(key, lambda: _slot_places(held))

    def attend(self, x: Tensor, k: Tensor, v: Tensor, to: Places, call: Call) -> Tensor:
        """x (B, T, M) -> (B, T, M). Slots have no place among the tokens, so those of the queries do not matter."""
        at = call.memo.once(("in order", call.at), lambda: Places.run(0, call.at.length, call.at.device))
        rate = self.spec.dropout if self.training else 0.0
        q = self.projection.queries(x)
        heads = attend(Request(q, k, v, at, to, Everything(), self.position, self.scale, rate, call.memo))
        y: Tensor = self.projection.output(heads)
        return y


class LinformerLayer(SlotAttentionLayer):
    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        refuse_past_end(call.at, self.spec.length)
        return Out(self.attend(x, *self.slots(x, call.at, call), call))


class LinformerCrossLayer(SlotAttentionLayer):
    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        met = self.skip(x, call, state)
        return Out(self.attend(x, met.k.view, met.v.view, met.places, call), met if call.remember else None)

    def skip(self, x: Tensor, call: Call, state: Any = None) -> KeysValues:
        """The encoder's slots, which owe nothing to x."""
        if state is not None:
            met: KeysValues = state
            return met
        if call.encoded is None:
            raise ValueError("cross-attention was given neither an encoder's output nor the state of an earlier call")
        hidden, places = call.encoded
        end = places.bounds[1]
        if end >= self.spec.length:
            what = f"cross-attention compresses sources of {self.spec.length} positions and this one has {end + 1}"
            raise FormersError(f"{what}: shorten it, or build the model with a larger length")
        k, v, to = self.slots(hidden, places, call)
        return KeysValues(Log(k), Log(v), to)


def _projected(mixed: Compressed, layer: nn.Linear) -> Tensor:
    """What compressing the projected inputs would give, (B, S, H * D)."""
    y = linear(mixed.x, layer.weight)
    return y if layer.bias is None else torch.addcmul(y, mixed.ones[..., None], layer.bias)


def _slot_places(held: Tensor) -> Places:
    """Slots held (B, S) as places of which some are padding."""
    return Places(torch.arange(held.shape[1], device=held.device)[None], held)
