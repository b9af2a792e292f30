"""Longformer: an encoder with global tokens, and a language model whose windows grow with depth."""

from formers.attention import Attention, ByHead, Causal, Dilated, LongformerAttention, Pattern, Window
from formers.block import Block
from formers.embedding import Embedding
from formers.errors import ConfigError
from formers.family.originals import SMALL
from formers.family.registry import member
from formers.feedforward import MLP
from formers.head import MaskedLM
from formers.model import Decoder, Encoder
from formers.norm import LayerNorm
from formers.position import Learned, Rotary
from formers.residual import PostNorm, PreNorm


@member("Longformer", paper="arXiv:2004.05150", year=2020, cost="n·w", small=SMALL | {"length": 64, "window": (4, 10)})
def longformer(
    vocab: int = 50_265,
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
    hidden: int | None = None,
    length: int = 4096,
    window: int | tuple[int, ...] = 512,
    dropout: float = 0.1,
) -> Encoder:
    """A RoBERTa with windows in place of full attention; global tokens are given by the mark "global".

    window: how many tokens beside itself a token sees, half of them on either side; or one such number for each layer.
    """
    widths = (window,) * depth if isinstance(window, int) else window
    if len(widths) != depth:
        raise ConfigError(
            f"window={widths} tells {len(widths)} windows for depth={depth}: give one number for each layer"
        )
    if odd := [width for width in widths if width % 2]:
        raise ConfigError(f"a window of {odd[0]} has no two equal sides: window={odd[0] + 1}")
    norm, feed_forward = LayerNorm(), MLP(hidden or 4 * dim)
    blocks = (
        Block(
            (LongformerAttention(heads, Window(width // 2 + 1), dropout=dropout), feed_forward), PostNorm(norm, dropout)
        )
        for width in widths
    )
    embedding = Embedding(Learned(length), segments=1, norm=norm, dropout=dropout)
    return Encoder("longformer", vocab, dim, tuple(blocks), embedding, norm=None, head=MaskedLM(eps=norm.eps))


@member(
    "Longformer, as a language model",
    paper="arXiv:2004.05150",
    year=2020,
    cost="n·w",
    small=SMALL | {"window": (3, 6), "dilated": 2},
)
def longformer_lm(
    vocab: int = 258,
    dim: int = 512,
    depth: int = 12,
    heads: int = 8,
    hidden: int = 2048,
    window: tuple[int, int] = (32, 512),
    dilated: int = 2,
    dropout: float = 0.2,
) -> Decoder:
    """A decoder whose windows double on the way up, from 32 tokens in the lowest layers to 512 in the highest.

    window: of the lowest and the highest layer. dilated: heads of each layer in the upper half whose windows have gaps:
    every 2nd token at first, every 4th at the top. Defaults: text8's and enwik8's small model, in its first phase.
    Differs from the paper: rotary positions, which the fused kernels can run, in place of Transformer-XL's.
    """
    feed_forward, residual = MLP(hidden), PreNorm(dropout=dropout)
    sizes, upper = grown(*window, depth), depth - depth // 2
    blocks = []
    for layer, size in enumerate(sizes):
        step = 1 if layer < upper else 2 + 3 * (layer - upper) // (depth - upper)
        pattern = Causal() & windows(size, step, heads, dilated)
        attention = Attention(heads, pattern=pattern, position=Rotary(), dropout=dropout)
        blocks.append(Block((attention, feed_forward), residual))
    return Decoder("longformer_lm", vocab, dim, tuple(blocks))


def grown(first: int, last: int, depth: int) -> list[int]:
    """Windows from `first` at the bottom to `last` at the top, doubled each time the same number of layers has passed.

    Raises ConfigError where the last is no power of two times the first, or there are fewer layers than windows.
    """
    if first < 1 or last < first or last % first or (last // first) & (last // first - 1):
        raise ConfigError(f"doubling does not lead from a window of {first} to one of {last}: window=(32, 512)")
    kinds = (last // first).bit_length()
    if kinds > depth:
        mend = f"depth={kinds}, or window=({first}, {first << max(0, depth - 1)})"
        raise ConfigError(f"{kinds} windows from {first} to {last} need as many layers: {mend}")
    return [first << (layer * kinds // depth) for layer in range(depth)]


def windows(size: int, step: int, heads: int, dilated: int) -> Pattern:
    """A window in every head, that of the last `dilated` heads at every `step`-th token."""
    if not 0 <= dilated <= heads:
        raise ConfigError(f"of {heads} heads {dilated} cannot be dilated: dilated=2")
    if step == 1 or not dilated:
        return Window(size)
    return ByHead((Window(size),) * (heads - dilated) + (Dilated(size, step),) * dilated)
