"""Scaling Transformers, as a language model and to translate: sparse feed-forward, sparse QKV, sparse logits."""

from typing import Any

from formers.attention import CrossAttention, SparseQueries
from formers.block import Block, stack
from formers.embedding import Embedding
from formers.encoder_decoder import EncoderDecoder
from formers.family.originals import SMALL
from formers.family.registry import member
from formers.family.sparsity import Sparsity, position_of
from formers.init import Xavier
from formers.model import Decoder, Encoder
from formers.norm import LayerNorm
from formers.residual import PreNorm

SPARSE_SMALL = SMALL | {"hidden": 96, "block": 32, "rank": 4, "modules": 4, "loss_modules": 4, "length": 64}

# Widths of the models that the paper times. The 7B class is the one that was published beside them.
SIZES: dict[str, dict[str, Any]] = {
    "small": {"dim": 256, "depth": 4, "heads": 8, "hidden": (1024, 1856), "block": 16, "rank": 16, "modules": 8},
    "800m": {},
    "7b": {"dim": 4096, "heads": 32, "hidden": (16_384, 32_768), "block": 128, "rank": 32, "modules": 32}
    | {"share_qk": True, "dropout": 0.0},
    "17b": {"dim": 9216, "depth": 6, "heads": 96, "hidden": (40_960, 65_536), "block": 256, "rank": 32, "modules": 64}
    | {"loss_modules": 8},
}


@member(
    "Scaling Transformer",
    paper="arXiv:2111.12763",
    year=2021,
    cost="n²",
    small=SPARSE_SMALL,
    presets=SIZES,
)
def scaling_transformer(
    vocab: int = 32_000,
    dim: int = 1024,
    depth: int = 24,
    heads: int = 16,
    hidden: int | tuple[int, int] = (4096, 6144),
    attentions: int = 2,
    sparse: tuple[str, ...] = ("feed_forward", "qkv", "loss"),
    block: int = 64,
    rank: int = 16,
    modules: int = 16,
    share_qk: bool = False,
    loss_modules: int = 4,
    positions: str = "learned",
    length: int = 2048,
    dropout: float = 0.1,
    feed_forward_chunk: int | None = None,
) -> Decoder:
    """A decoder of `depth` blocks, each of `attentions` attentions and one feed-forward. Defaults: the 800M class.

    hidden: units of the feed-forward; of two numbers, the second where queries, keys and values are sparse, for what that
    saves is spent on units. sparse: which parts are; () is the dense model that all rows of the paper start from.
    block and rank: of the sparse feed-forward; modules and share_qk: of sparse queries, keys and values; loss_modules: of
    the sparse head. positions: see `formers.family.sparsity.POSITIONS`; length: of those that are tables.
    """
    sparsity = Sparsity(sparse, block, rank, modules, share_qk, loss_modules)
    norm, feed_forward = LayerNorm(eps=1e-6), sparsity.feed_forward(hidden, feed_forward_chunk)
    sublayers = (sparsity.attention(heads),) * attentions + (feed_forward,)
    blocks = stack(Block(sublayers, PreNorm(norm, dropout)), times=depth)
    embedding = Embedding(position_of(positions, dim, length), scaled=True, dropout=dropout)
    return Decoder("scaling_transformer", vocab, dim, blocks, embedding, norm, sparsity.head(), Xavier())


@member(
    "Scaling Transformer, to translate",
    paper="arXiv:2111.12763",
    year=2021,
    cost="n²",
    small=SPARSE_SMALL | {"encoder_depth": 1},
    presets={
        "small": SIZES["small"] | {"encoder_depth": 4},
        "800m": SIZES["800m"],
        "7b": SIZES["7b"] | {"encoder_depth": 4},
        "17b": SIZES["17b"] | {"encoder_depth": 6},
    },
)
def scaling_transformer_translation(
    vocab: int = 32_000,
    dim: int = 1024,
    depth: int = 24,
    encoder_depth: int = 24,
    heads: int = 16,
    hidden: int | tuple[int, int] = (4096, 6144),
    sparse: tuple[str, ...] = ("feed_forward", "qkv", "loss"),
    block: int = 64,
    rank: int = 16,
    modules: int = 16,
    share_qk: bool = False,
    loss_modules: int = 4,
    positions: str = "learned",
    length: int = 2048,
    dropout: float = 0.1,
    feed_forward_chunk: int | None = None,
) -> EncoderDecoder:
    """The same with an encoder and cross-attention. Arguments as in scaling_transformer, but a decoder block has one
    attention to itself and one to the encoder; sparse may also hold "cross", for the queries of the latter."""
    sparsity = Sparsity(sparse, block, rank, modules, share_qk, loss_modules)
    norm, feed_forward = LayerNorm(eps=1e-6), sparsity.feed_forward(hidden, feed_forward_chunk)
    across = (
        CrossAttention(heads, projection=SparseQueries(modules)) if sparsity.has("cross") else CrossAttention(heads)
    )
    residual = PreNorm(norm, dropout)
    reads = stack(Block((sparsity.dense_attention(heads), feed_forward), residual), times=encoder_depth)
    writes = stack(Block((sparsity.attention(heads), across, feed_forward), residual), times=depth)
    embedding = Embedding(position_of(positions, dim, length), scaled=True, dropout=dropout)
    name = "scaling_transformer_translation"
    return EncoderDecoder(
        name,
        Encoder(f"{name}.source", vocab, dim, reads, embedding, norm, init=Xavier()),
        Decoder(f"{name}.target", vocab, dim, writes, embedding, norm, sparsity.head(), Xavier()),
    )
