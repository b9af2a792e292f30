"""Encoders without full attention: Linformer, whose tokens meet a fixed number of slots, and FNet, which has a Fourier
transform in its place."""

from typing import Literal

from formers.attention import Attention, ConvolvedSlots, Layerwise, LinearSlots, Linformer, PooledSlots
from formers.attention.low_rank.compress import Compression
from formers.block import Block, stack
from formers.embedding import Embedding
from formers.embedding.projected import ProjectedEmbedding
from formers.errors import ConfigError
from formers.family.originals import SMALL
from formers.family.registry import member
from formers.feedforward import MLP
from formers.fourier import Fourier
from formers.head import MaskedLM
from formers.model import Encoder
from formers.norm import LayerNorm
from formers.position import Learned
from formers.residual import PostNorm

Share = Literal["none", "headwise", "keys_values", "layers"]
By = Literal["linear", "mean", "max", "convolution"]


@member("Linformer", paper="arXiv:2006.04768", year=2020, cost="n·k", small=SMALL | {"length": 64, "slots": (12, 8)})
def linformer(
    vocab: int = 50_265,
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
    hidden: int | None = None,
    length: int = 512,
    slots: int | tuple[int, ...] = 128,
    share: Share = "headwise",
    by: By = "linear",
    dropout: float = 0.1,
) -> Encoder:
    """A RoBERTa whose tokens meet `slots` mixtures of all tokens in place of each other. Defaults: the paper's base model.

    slots: k of the paper; or one such number for each layer, since upper layers need fewer. share: one projection for
    each head, for all heads of a layer, for its keys and values too, or one for all layers. by: how slots are made.
    """
    counts = (slots,) * depth if isinstance(slots, int) else slots
    if len(counts) != depth:
        raise ConfigError(f"slots={counts} tells {len(counts)} numbers for depth={depth}: give one for each layer")
    norm, feed_forward, compress = LayerNorm(), MLP(hidden or 4 * dim), compression(by, share)
    layers = (Linformer(heads, length, count, compress, dropout=dropout) for count in counts)
    blocks = tuple(Block((layer, feed_forward), PostNorm(norm, dropout)) for layer in layers)
    embedding = Embedding(Learned(length), segments=1, norm=norm, dropout=dropout)
    depths = (Layerwise(blocks),) if share == "layers" else blocks
    return Encoder("linformer", vocab, dim, depths, embedding, norm=None, head=MaskedLM(eps=norm.eps))


def compression(by: By, share: Share) -> Compression:
    """How slots are made. Raises ConfigError where there is nothing to share as asked."""
    if by in ("mean", "max"):
        if share != "headwise":
            raise ConfigError(f"pooling has no parameters that share={share!r} could speak of: leave it out")
        return PooledSlots(by)
    if share == "layers":
        if by == "convolution":
            raise ConfigError('layers share one matrix, and not a convolution: by="linear", or share="keys_values"')
        return LinearSlots("keys_values")
    return LinearSlots(share) if by == "linear" else ConvolvedSlots(share)


@member("FNet", paper="arXiv:2105.03824", year=2021, cost="n log n", small=SMALL | {"length": 64})
def fnet(
    vocab: int = 32_000,
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
    hidden: int | None = None,
    length: int = 512,
    attend: int = 0,
    dropout: float = 0.1,
) -> Encoder:
    """A BERT whose layers mix tokens by a Fourier transform; its embeddings go through one more matrix.

    attend: how many of the last layers have attention, of `heads` heads, as hybrids have.
    """
    if not 0 <= attend <= depth:
        raise ConfigError(f"of {depth} layers the last {attend} cannot attend: attend={min(max(attend, 0), depth)}")
    norm, feed_forward = LayerNorm(eps=1e-12), MLP(hidden or 4 * dim, "gelu_tanh")
    residual = PostNorm(norm, dropout)
    mixing = stack(Block((Fourier(), feed_forward), residual), times=depth - attend)
    attending = stack(Block((Attention(heads, dropout=dropout), feed_forward), residual), times=attend)
    embedding = ProjectedEmbedding(Learned(length), segments=4, norm=norm, dropout=dropout)
    return Encoder("fnet", vocab, dim, mixing + attending, embedding, norm=None, head=MaskedLM("gelu_tanh"))


@member(
    "FNet, hybrid",
    paper="arXiv:2105.03824",
    year=2021,
    cost="n²",
    small=SMALL | {"length": 64, "depth": 3, "attend": 1},
)
def fnet_hybrid(
    vocab: int = 32_000,
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
    hidden: int | None = None,
    length: int = 512,
    attend: int = 2,
    dropout: float = 0.1,
) -> Encoder:
    """An FNet whose last two layers attend, which makes up for most of what attention is better at."""
    spec: Encoder = fnet(vocab, dim, depth, heads, hidden, length, attend, dropout).replace(name="fnet_hybrid")
    return spec
