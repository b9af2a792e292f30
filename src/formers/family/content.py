"""Members whose attention goes by content: Reformer, as a language model and to translate, routing and Sinkhorn."""

from itertools import cycle, islice

from formers.attention import (
    LSH,
    Attention,
    Blocks,
    Causal,
    CrossAttention,
    Dense,
    Routing,
    SharedQK,
    SinkhornAttention,
)
from formers.block import Block, stack
from formers.embedding import Embedding
from formers.encoder_decoder import EncoderDecoder
from formers.errors import ConfigError
from formers.family.originals import SMALL
from formers.family.registry import member
from formers.feedforward import MLP
from formers.head import Untied
from formers.init import Xavier
from formers.model import Decoder, Encoder
from formers.norm import LayerNorm
from formers.parallel import Parallel
from formers.position import Axial, Learned, Rotary, SelfLast, Sinusoidal
from formers.residual import PreNorm
from formers.reversible import Reversible


def local_attention(
    heads: int, chunk: int, before: int = 1, *, head_dim: int | None = None, dropout: float = 0.0
) -> Attention:
    """Reformer's partner of hashing: each chunk of positions attends to itself and to the chunks `before` it."""
    pattern = Causal() & Blocks(chunk, before)
    return Attention(heads, head_dim=head_dim, pattern=pattern, projection=Dense(bias=False), dropout=dropout)


def lsh_attention(heads: int, select: LSH | None, *, head_dim: int | None = None, dropout: float = 0.0) -> Attention:
    """Queries that are their own keys, and meet where they fall into one bucket; None: all of them meet."""
    alike = Attention(heads, head_dim=head_dim, position=SelfLast(), projection=SharedQK(), scale=1.0, dropout=dropout)
    return alike if select is None else alike.replace(select=select)


@member(
    "Reformer",
    paper="arXiv:2001.04451",
    year=2020,
    cost="n log n",
    small=SMALL
    | {"chunk": 4, "rounds": 2, "buckets": 4, "strict": True, "local_chunk": 3, "layers": ("local", "lsh")}
    | {"shape": (8, 8), "feed_forward_chunk": 5},
)
def reformer(
    vocab: int = 258,
    dim: int = 1024,
    depth: int = 12,
    heads: int = 8,
    hidden: int = 4096,
    layers: tuple[str, ...] = ("local", "local", "lsh", "local"),
    chunk: int = 256,
    rounds: int = 4,
    buckets: int | tuple[int, ...] | None = 512,
    strict: bool = False,
    local_chunk: int = 128,
    shape: tuple[int, ...] = (128, 512),
    dims: tuple[int, ...] | None = None,
    dropout: float = 0.1,
    feed_forward_chunk: int | None = 1024,
) -> Decoder:
    """A reversible decoder of hashing and local layers, which are taken in turn from `layers`. Defaults: enwik8's.

    dims: of the axial positions; None: a quarter of dim for the first axis, the rest for the second.
    """
    kinds = {
        "local": local_attention(heads, local_chunk),
        "lsh": lsh_attention(heads, LSH(chunk, rounds, buckets, strict=strict)),
    }
    if unknown := sorted(set(layers) - set(kinds)):
        raise ConfigError(f"reformer has no layers named {unknown[0]!r}: layers=('local', 'lsh')")
    norm, feed_forward = LayerNorm(eps=1e-6), MLP(hidden, "relu", chunk=feed_forward_chunk)
    residual, turns = PreNorm(norm, dropout), islice(cycle(layers), depth)
    blocks = tuple(Block((kinds[kind], feed_forward), residual) for kind in turns)
    embedding = Embedding(Axial(shape, dims or (dim // 4, dim - dim // 4)), dropout=dropout)
    return Decoder("reformer", vocab, dim, (Reversible(blocks),), embedding, norm, Untied(bias=True))


@member("Reformer, to translate", paper="arXiv:2001.04451", year=2020, cost="n²", small=SMALL)
def reformer_translation(
    vocab: int = 37_000,
    dim: int = 512,
    depth: int = 6,
    heads: int = 8,
    hidden: int = 2048,
    dropout: float = 0.1,
    lsh: bool = False,
    chunk: int = 64,
    rounds: int = 4,
) -> EncoderDecoder:
    """The vanilla encoder-decoder with shared queries and keys, in reversible stacks whose two streams are averaged.

    lsh: hashing, at a cost of n log n, where texts are long; sentences are shorter than what hashing pays for.
    """
    norm, embedding = LayerNorm(eps=1e-6), Embedding(Sinusoidal(), scaled=True, dropout=dropout)
    attention = lsh_attention(heads, LSH(chunk, rounds) if lsh else None)
    feed_forward, residual = MLP(hidden, "relu"), PreNorm(norm, dropout)
    reads = stack(Block((attention, feed_forward), residual), times=depth)
    writes = stack(Block((attention, CrossAttention(heads), feed_forward), residual), times=depth)
    source, target = Reversible(reads, "mean"), Reversible(writes, "mean")
    return EncoderDecoder(
        "reformer_translation",
        Encoder("reformer_translation.source", vocab, dim, (source,), embedding, norm, init=Xavier()),
        Decoder("reformer_translation.target", vocab, dim, (target,), embedding, norm, Untied(bias=True), Xavier()),
    )


@member(
    "Routing Transformer",
    paper="arXiv:2003.05997",
    year=2020,
    cost="n√n",
    small=SMALL | {"clusters": 3, "window": 5},
)
def routing_transformer(
    vocab: int = 258,
    dim: int = 512,
    depth: int = 6,
    heads: int = 8,
    hidden: int = 2048,
    length: int = 8192,
    clusters: int = 64,
    window: int = 128,
    dropout: float = 0.1,
) -> Decoder:
    """Half of the heads local, half of them routed, in the strict form that decodes exactly.

    The cost is n√n where there are √n clusters and a window of √n tokens.
    """
    routed, head_dim = heads // 2, dim // heads
    local = local_attention(heads - routed, window, head_dim=head_dim).replace(position=Rotary())
    by_content = lsh_attention(routed, None, head_dim=head_dim).replace(select=Routing(clusters, window))
    block = Block((Parallel((local, by_content)), MLP(hidden)), PreNorm(dropout=dropout))
    return Decoder("routing_transformer", vocab, dim, stack(block, times=depth), Embedding(Learned(length)))


@member(
    "Sparse Sinkhorn Transformer", paper="arXiv:2002.11296", year=2020, cost="n b + (n/b)²", small=SMALL | {"block": 4}
)
def sinkhorn_transformer(
    vocab: int = 258,
    dim: int = 512,
    depth: int = 6,
    heads: int = 8,
    hidden: int = 2048,
    length: int = 8192,
    block: int = 64,
    iterations: int = 1,
    dropout: float = 0.1,
) -> Decoder:
    """Each block of tokens attends to itself and to a mixture of earlier ones that a sorting network brings to it.

    iterations: of Sinkhorn's balancing. More than one leave a decoder little but "the block before": see
    `SinkhornAttention`, and what was measured in docs/claims.md.
    """
    attention = SinkhornAttention(heads, block=block, iterations=iterations)
    blocks = stack(Block((attention, MLP(hidden)), PreNorm(dropout=dropout)), times=depth)
    return Decoder("sinkhorn_transformer", vocab, dim, blocks, Embedding(Learned(length)))
