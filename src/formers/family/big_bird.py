"""Big Bird: windows of blocks, global tokens and random blocks; Zaheer et al. 2020, arXiv:2007.14062.

What a query sees is told by its place and the model's length, never by how long a text is. So there is no length below
which a model works otherwise, as the published code does below 5 + 2 random blocks; in a text that ends before the
model's length, no block at the end is global, as in the paper's, which is padded to that length.
"""

from formers.attention import Attention, Blocks, Causal, Global, Pattern, RandomBlocks
from formers.block import Block
from formers.embedding import Embedding
from formers.errors import ConfigError
from formers.family.originals import SMALL
from formers.family.registry import member
from formers.feedforward import MLP
from formers.head import MaskedLM
from formers.model import Decoder, Encoder
from formers.norm import LayerNorm
from formers.position import Learned, RelativeKeys
from formers.residual import PostNorm, PreNorm, Residual

SMALL_BLOCKS = SMALL | {"length": 64, "block": 4, "random": 2}


def itc_pattern(
    heads: int, length: int, block: int = 64, window: int = 3, random: int = 3, *, seed: int = 0
) -> Pattern:
    """The pattern of the internal construction: a window of blocks, the first and the last block of the length global,
    and random blocks, drawn by the seed, so that each layer is to have another.

    Raises ConfigError for a window that has no middle.
    """
    side, last = _side(window), -(-length // max(1, block)) - 1
    near = Blocks(block, side, side) | Global(block) | Global(block, first=last * block)
    far = RandomBlocks(block, random, heads, length=length, before=side, after=side, seed=seed)
    return near | far if random else near


def etc_pattern(
    heads: int, length: int, tokens: int, block: int = 64, window: int = 3, random: int = 3, *, seed: int = 0
) -> Pattern:
    """The pattern of the extended construction: the first `tokens` positions, which are no text, are global; and windows
    and random blocks as in `itc_pattern`. length: positions behind them. Raises ConfigError for a window that has no middle."""
    side, whole = _side(window), tokens // max(1, block)
    near = Blocks(block, side, side) | Global(tokens)
    far = RandomBlocks(
        block, random, heads, length=tokens + length, before=side, after=side, first=whole, last=0, seed=seed
    )
    return near | far if random else near


def causal_pattern(
    heads: int, length: int | None, block: int = 64, window: int = 3, random: int = 3, *, seed: int = 0
) -> Pattern:
    """The pattern for a decoder, which the paper has not: a window that ends with a query's own block, the first block for
    all, and random blocks of what is earlier. length: None draws without end."""
    near = Blocks(block, before=window - 1) | Global(block)
    far = RandomBlocks(block, random, heads, length=length, among="earlier", before=window - 1, seed=seed)
    return Causal() & (near | far if random else near)


def _side(window: int) -> int:
    """The blocks on either side of the middle one."""
    if window < 1 or window % 2 == 0:
        raise ConfigError(f"a window of {window} blocks has no middle block: give window=3")
    return window // 2


def _blocks(attention: Attention, patterns: list[Pattern], hidden: int, residual: Residual) -> tuple[Block, ...]:
    """A block for each pattern."""
    feed_forward = MLP(hidden, "gelu_tanh")
    return tuple(Block((attention.replace(pattern=pattern), feed_forward), residual) for pattern in patterns)


@member("Big Bird", paper="arXiv:2007.14062", year=2020, cost="n (g + w + r) b", small=SMALL_BLOCKS)
def big_bird(
    vocab: int = 50_358,
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
    hidden: int | None = None,
    length: int = 4096,
    block: int = 64,
    window: int = 3,
    random: int = 3,
    dropout: float = 0.1,
) -> Encoder:
    """A post-norm encoder that fills in masked tokens, of the internal construction (ITC); each layer draws its own blocks.

    block: tokens of one; window: blocks, with the query's own in the middle; random: blocks for each block and head.
    """
    norm = LayerNorm(eps=1e-12)
    patterns = [itc_pattern(heads, length, block, window, random, seed=layer) for layer in range(depth)]
    blocks = _blocks(Attention(heads, dropout=dropout), patterns, hidden or 4 * dim, PostNorm(norm, dropout))
    embedding = Embedding(Learned(length), segments=2, norm=norm, dropout=dropout)
    return Encoder("big_bird", vocab, dim, blocks, embedding, norm=None, head=MaskedLM("gelu_tanh"))


@member(
    "Big Bird, extended",
    paper="arXiv:2007.14062",
    year=2020,
    cost="n (g + w + r) b",
    small=SMALL_BLOCKS | {"tokens": 5},
)
def big_bird_etc(
    vocab: int = 50_358,
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
    hidden: int | None = None,
    length: int = 4096,
    tokens: int = 256,
    block: int = 64,
    window: int = 3,
    random: int = 3,
    reach: int = 12,
    dropout: float = 0.1,
) -> Encoder:
    """An encoder of the extended construction (ETC): `tokens` global ones that are no text stand in front of every input,
    `length` others behind them, and order is told by relative positions of keys up to `reach`.

    Give the global tokens ids of their own: nothing else tells one from another. Longer inputs run, and see no random
    blocks past the length. Differs from the paper: which labels ETC puts between text and global tokens is not said there.
    """
    norm, attention = LayerNorm(eps=1e-12), Attention(heads, position=RelativeKeys(reach), dropout=dropout)
    patterns = [etc_pattern(heads, length, tokens, block, window, random, seed=layer) for layer in range(depth)]
    blocks = _blocks(attention, patterns, hidden or 4 * dim, PostNorm(norm, dropout))
    embedding = Embedding(segments=2, norm=norm, dropout=dropout)
    return Encoder("big_bird_etc", vocab, dim, blocks, embedding, norm=None, head=MaskedLM("gelu_tanh"))


@member("Big Bird, causal", paper="arXiv:2007.14062", year=2020, cost="n (g + w + r) b", small=SMALL_BLOCKS)
def big_bird_lm(
    vocab: int = 50_257,
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
    hidden: int | None = None,
    length: int = 4096,
    block: int = 64,
    window: int = 3,
    random: int = 3,
    dropout: float = 0.1,
) -> Decoder:
    """A pre-norm decoder under the pattern's causal form. What no later block draws, its cache forgets."""
    patterns = [causal_pattern(heads, length, block, window, random, seed=layer) for layer in range(depth)]
    blocks = _blocks(Attention(heads, dropout=dropout), patterns, hidden or 4 * dim, PreNorm(dropout=dropout))
    return Decoder("big_bird_lm", vocab, dim, blocks, Embedding(Learned(length), dropout=dropout))
