"""Attention layers whose pattern is fixed by position, ours and the rivals', as lessons: forward and backward."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from formers.attention import Attention, Blocks, Causal, Window
from formers.attention.longformer import LongformerAttention
from formers.attention.pattern import Pattern
from formers.attention.patterns.random_blocks import RandomBlocks
from formers.attention.patterns.seen_by_all import Global
from formers.attention.patterns.strided import Strided, Summary
from formers.bench.lesson import Plain, Shape, Turn, lesson
from formers.call import Call, Layer
from formers.places import Places

WINDOW, STRIDE, CELLS, BLOCK, GLOBAL, RANDOM = 256, 128, 8, 64, 16, 3


@dataclass(frozen=True)
class Kind:
    """A pattern at a length: our layer, whether it is causal, and whether its first tokens carry the mark "global"."""

    layer: Callable[[Shape], Layer]
    causal: bool = True
    marked: bool = False


def causal(pattern: Pattern) -> Kind:
    """Ours of a pattern, seen up to the query."""
    return Kind(lambda shape: Attention(shape.heads, pattern=Causal() & pattern))


def big_bird(shape: Shape) -> Layer:
    """The internal construction: first and last block global, three blocks of window, three at random."""
    ends = Global(BLOCK) | Global(BLOCK, first=shape.length - BLOCK)
    drawn = RandomBlocks(BLOCK, RANDOM, heads=shape.heads, length=shape.length)
    return Attention(shape.heads, pattern=Blocks(BLOCK, 1, 1) | ends | drawn)


KINDS = {
    "window": causal(Window(WINDOW)),
    "strided": causal(Window(STRIDE) | Strided(STRIDE)),
    "fixed": causal(Blocks(STRIDE) | Summary(STRIDE, STRIDE - CELLS, CELLS)),
    "longformer": Kind(lambda shape: LongformerAttention(shape.heads, Window(WINDOW + 1)), causal=False, marked=True),
    "big bird": Kind(big_bird, causal=False),
}


def ours_of(kind: str, shape: Shape) -> Turn:
    """A lesson of our layer."""
    told = KINDS[kind]
    layer = told.layer(shape).build(shape.site.replace(causal=told.causal)).train()
    marks = {"global": (torch.arange(shape.length) < GLOBAL).long()[None]} if told.marked else None

    def run(x: Tensor) -> Tensor:
        y: Tensor = layer(x, Call(Places.run(0, shape.length, None, marks), remember=False)).y
        return y

    return lesson(run, shape)


def sdpa_of(kind: str, shape: Shape) -> Turn:
    """A lesson of PyTorch's own attention, causal as the pattern is."""
    return lesson(Plain(shape, causal=KINDS[kind].causal), shape)


class Around(Plain):
    """Somebody's attention of queries, keys and values, with the four products around it."""

    def __init__(self, shape: Shape, attention: nn.Module) -> None:
        super().__init__(shape)
        self.attention = attention

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        y: Tensor = self.attention(q, k, v)
        return y


def local_attention(shape: Shape) -> Turn:
    """Of the package local-attention, where each query sees as many keys as ours."""
    from local_attention import LocalAttention

    attention = LocalAttention(WINDOW, causal=True, look_backward=1, exact_windowsize=True, autopad=True)
    return lesson(Around(shape, attention), shape)


class Outside(nn.Module):
    """A layer without a product for its output, and that product."""

    def __init__(self, shape: Shape, attention: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.attention, self.out = attention, nn.Linear(shape.dim, shape.dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.attention(x))
        return y


def longformer_of_transformers(shape: Shape) -> Turn:
    """Theirs, of a window of as many keys on either side, and as many global tokens."""
    from transformers.models.longformer.modeling_longformer import LongformerConfig, LongformerSelfAttention

    config = LongformerConfig(
        hidden_size=shape.dim,
        num_attention_heads=shape.heads,
        attention_window=[2 * WINDOW],
        attention_probs_dropout_prob=0.0,
    )
    layer = LongformerSelfAttention(config, 0).train()
    told = torch.zeros(1, shape.length)
    told[:, :GLOBAL] = 10_000.0

    def attend(x: Tensor) -> Tensor:
        y: Tensor = layer(x, told, told < 0, told > 0, True)[0]
        return y

    return lesson(Outside(shape, attend), shape)


def big_bird_of_transformers(shape: Shape) -> Turn:
    """Theirs, in training mode: in evaluation its random blocks are all the first one."""
    from transformers import BigBirdConfig, BigBirdModel
    from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention

    config = BigBirdConfig(
        hidden_size=shape.dim,
        num_attention_heads=shape.heads,
        block_size=BLOCK,
        num_random_blocks=RANDOM,
        max_position_embeddings=shape.length,
        attention_probs_dropout_prob=0.0,
    )
    layer: Any = BigBirdBlockSparseAttention(config, seed=0).train()
    mask = torch.ones(1, shape.length)
    names = ("from_blocked_mask", "band_mask", "from_mask", "to_mask")
    masks = dict(zip(names, BigBirdModel.create_masks_for_block_sparse_attn(mask, BLOCK), strict=True))
    masks["to_blocked_mask"] = masks["from_blocked_mask"]

    def attend(x: Tensor) -> Tensor:
        y: Tensor = layer(x, **masks)[0]
        return y

    return lesson(Outside(shape, attend), shape)
