"""Terraformer's decoder by itself: a language model of sparse layers in a reversible stack."""

from formers.block import Block
from formers.embedding import Embedding
from formers.family.registry import member
from formers.family.scaling import SIZES, SPARSE_SMALL
from formers.family.sparsity import Sparsity, position_of
from formers.init import Xavier
from formers.model import Decoder
from formers.norm import LayerNorm
from formers.parallel import Parallel
from formers.recurrence import SRUBranch
from formers.residual import PreNorm
from formers.reversible import Reversible


@member(
    "Terraformer, as a language model",
    paper="arXiv:2111.12763",
    year=2021,
    cost="n²",
    small=SPARSE_SMALL | {"recurrence": (1, 4)},
    presets={
        "small": SIZES["small"] | {"recurrence": (1, 32)},
        "800m": SIZES["800m"],
        "7b": SIZES["7b"] | {"recurrence": (1, 64), "share_qk": True},
        "17b": SIZES["17b"] | {"recurrence": (1, 64)},
    },
)
def terraformer_lm(
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
    recurrence: tuple[int, int] | None = (1, 32),
    positions: str = "learned",
    length: int = 2048,
    dropout: float = 0.1,
    feed_forward_chunk: int | None = None,
) -> Decoder:
    """What decodes in Terraformer, where there is no source: its blocks, in a reversible stack whose streams are averaged.

    Arguments as in scaling_transformer; recurrence: depth and width of the branch beside each feed-forward, None for none.
    Differs from the paper: it has no encoder, whose output begins Terraformer's stream.
    """
    sparsity = Sparsity(sparse, block, rank, modules, share_qk, loss_modules)
    norm, feed_forward = LayerNorm(eps=1e-6), sparsity.feed_forward(hidden, feed_forward_chunk)
    if recurrence is not None:
        feed_forward = Parallel((feed_forward, SRUBranch(*recurrence)), norm)
    sublayers = (sparsity.attention(heads),) * attentions + (feed_forward,)
    blocks = (Block(sublayers, PreNorm(norm, dropout)),) * depth
    embedding = Embedding(position_of(positions, dim, length), scaled=True, dropout=dropout)
    depths = (Reversible(blocks, "mean"),)
    return Decoder("terraformer_lm", vocab, dim, depths, embedding, norm, sparsity.head(), Xavier())
