"""Members whose attention is factorised by place: Sparse Transformer, and BlockBERT."""

from itertools import cycle, islice
from typing import Literal

from formers.attention import (
    Attention,
    Blocks,
    ByHead,
    Causal,
    Pattern,
    Permuted,
    Strided,
    Summary,
    Window,
)
from formers.block import Block, stack
from formers.embedding import Embedding
from formers.errors import ConfigError
from formers.family.originals import SMALL
from formers.family.registry import member
from formers.feedforward import MLP
from formers.head import MaskedLM, Untied
from formers.init import FanIn
from formers.model import Decoder, Encoder
from formers.norm import LayerNorm
from formers.position import AxialSum, Learned
from formers.recomputed import Recomputed
from formers.residual import PostNorm, PreNorm

Kind = Literal["strided", "fixed"]
Use = Literal["alternate", "merged", "heads"]


@member(
    "Sparse Transformer",
    paper="arXiv:1904.10509",
    year=2019,
    cost="n√n",
    small=SMALL | {"shape": (8, 8), "stride": 8, "cells": 2},
    presets={
        "enwik8": {},
        "cifar10": {"dim": 256, "depth": 128, "heads": 2, "hidden": 512, "shape": (32, 32, 3), "kind": "strided"}
        | {"dropout": 0.25},
        "imagenet64": {"depth": 48, "heads": 16, "shape": (64, 64, 3), "kind": "strided", "dropout": 0.01},
    },
)
def sparse_transformer(
    vocab: int = 256,
    dim: int = 512,
    depth: int = 30,
    heads: int = 8,
    hidden: int | None = None,
    shape: tuple[int, ...] = (96, 128),
    kind: Kind = "fixed",
    use: Use = "merged",
    stride: int = 128,
    cells: int = 32,
    dropout: float = 0.4,
) -> Decoder:
    """A very deep decoder, recomputed block by block, whose queries see about √n keys. Defaults: enwik8's.

    shape: of the positions: an image's rows, columns and channels, or rows of one stride each. kind, use, stride, cells:
    see `factorised`. hidden: 4 dim, None.

    Differs from the paper in the preset cifar10: its queries and keys are half as wide as its values (59M parameters),
    and ours are not (67M). It does not say how its image models use their two patterns; here they are merged too.
    """
    residual, feed_forward = PreNorm(dropout=dropout), MLP(hidden or 4 * dim, "gelu_sigmoid")
    layers = [
        Block((Attention(heads, pattern=seen), feed_forward), residual)
        for seen in factorised(kind, use, heads, stride, cells)
    ]
    blocks = Recomputed(tuple(islice(cycle(layers), depth)))
    return Decoder("sparse_transformer", vocab, dim, (blocks,), Embedding(AxialSum(shape)), head=Untied(), init=FanIn())


def factorised(kind: Kind, use: Use, heads: int, stride: int, cells: int) -> tuple[Pattern, ...]:
    """The patterns of a Sparse Transformer's layers, which take them in turn. Child et al. 2019, arXiv:1904.10509.

    kind: "strided", the last `stride` keys and those at a multiple of `stride` from the query, for data that is laid out
    in rows of that length; "fixed", the query's own block of `stride` and the last `cells` places of every earlier one,
    for text. Where several heads see such cells, each sees others of the block, as far as there are any (section 4.3).
    use: "alternate", one layer sees by the first of the two and the next by the second; "merged", every head sees by
    both; "heads", every other head sees by the first and the others by the second.

    Differs from the paper: a query of the fixed pattern's cells sees its own key as well, for before the first cell there
    would be none.
    """
    if kind not in ("strided", "fixed") or use not in ("alternate", "merged", "heads"):
        raise ConfigError(f"there is no way to see that is {kind!r} and {use!r}: kind='fixed', use='merged'")
    if kind == "fixed" and not 0 < cells <= stride:
        raise ConfigError(
            f"a block of {stride} does not hold {cells} cells to be seen later: cells={max(1, stride // 4)}"
        )
    near = Window(stride) if kind == "strided" else Blocks(stride)
    far = _columns(stride) if kind == "strided" else _cells(stride, cells, heads // 2 if use == "heads" else heads)
    if use == "merged":
        return (_in_turn([Causal() & (near | each) for each in far]),)
    seconds = (
        [Causal() & each for each in far] if kind == "strided" else [Causal() & (Window(1) | each) for each in far]
    )
    if use == "alternate":
        return Causal() & near, _in_turn(seconds)
    return (_in_turn([pattern for second in seconds for pattern in (Causal() & near, second)]),)


def _columns(stride: int) -> list[Pattern]:
    return [Strided(stride)]


def _cells(stride: int, cells: int, heads: int) -> list[Pattern]:
    """The last cells of a block, those before them, and so on: as many different ones as there are heads and room."""
    return [Summary(stride, stride - cells * i, cells) for i in range(1, 1 + max(1, min(heads, stride // cells)))]


def _in_turn(patterns: list[Pattern]) -> Pattern:
    return patterns[0] if len(patterns) == 1 else ByHead(tuple(patterns))


@member(
    "BlockBERT",
    paper="arXiv:1911.02972",
    year=2019,
    cost="n²/b",
    small={name: size for name, size in SMALL.items() if name != "heads"} | {"heads_by_shift": (2, 1, 1), "length": 64},
    presets={"2 blocks": {}, "3 blocks": {"heads_by_shift": (8, 2, 2)}},
)
def blockbert(
    vocab: int = 30_522,
    dim: int = 768,
    depth: int = 12,
    heads_by_shift: tuple[int, ...] = (10, 2),
    hidden: int | None = None,
    length: int = 512,
    dropout: float = 0.1,
) -> Encoder:
    """A BERT whose heads see one block each: the first so many their own, others the next one, and so on, all round.

    There are as many blocks as entries in `heads_by_shift`, of length / blocks positions, rounded up; inputs need not fill
    them (see `Permuted`). The paper's best are 10 and 2 heads for two blocks, and 8, 2 and 2 for three.
    """
    blocks = len(heads_by_shift)
    if not blocks or min(heads_by_shift) < 0 or not sum(heads_by_shift):
        what = f"heads_by_shift={heads_by_shift} does not say how many heads see each block"
        raise ConfigError(f"{what}: heads_by_shift=(10, 2)")
    size = -(-length // blocks)
    patterns = tuple(Permuted(size, blocks, shift) for shift, count in enumerate(heads_by_shift) for _ in range(count))
    norm, embedding = LayerNorm(eps=1e-12), Learned(length)
    attention = Attention(len(patterns), pattern=ByHead(patterns), dropout=dropout)
    block = Block((attention, MLP(hidden or 4 * dim)), PostNorm(norm, dropout))
    return Encoder(
        "blockbert",
        vocab,
        dim,
        stack(block, times=depth),
        Embedding(embedding, segments=2, norm=norm, dropout=dropout),
        norm=None,
        head=MaskedLM(),
    )
