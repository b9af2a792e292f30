"""Terraformer: a reversible encoder and decoder in one stream, sparse throughout, with a recurrence beside each
feed-forward."""

from itertools import cycle, islice

from formers.attention import LSH, Attention, MultConv
from formers.block import Block
from formers.call import Layer
from formers.embedding import Embedding
from formers.encoder_decoder import EncoderDecoder
from formers.encoder_decoder.after_encoder import AfterEncoder
from formers.errors import ConfigError
from formers.family.content import lsh_attention
from formers.family.registry import member
from formers.family.scaling import SIZES, SPARSE_SMALL
from formers.family.sparsity import Sparsity, position_of
from formers.init import Xavier
from formers.linear import Linear
from formers.model import Decoder, Encoder
from formers.norm import LayerNorm
from formers.parallel import Parallel
from formers.parts import pieces
from formers.position import SelfLast
from formers.recurrence import SRUBranch
from formers.residual import PreNorm
from formers.reversible import Reversible
from formers.spec.codec import mean


@member(
    "Terraformer",
    paper="arXiv:2111.12763",
    year=2021,
    cost="n²",
    small=SPARSE_SMALL | {"encoder_depth": 1, "layers": ("mult_conv", "dense"), "recurrence": (1, 4)},
    presets={
        "small": SIZES["small"] | {"encoder_depth": 4, "recurrence": (1, 32)},
        "800m": SIZES["800m"],
        "7b": SIZES["7b"] | {"encoder_depth": 4, "recurrence": (1, 64), "feed_forward_chunk": 1024},
        "17b": SIZES["17b"] | {"encoder_depth": 6, "recurrence": (1, 64)},
    },
)
def terraformer(
    vocab: int = 32_000,
    dim: int = 1024,
    depth: int = 24,
    encoder_depth: int = 24,
    heads: int = 16,
    hidden: int | tuple[int, int] = (4096, 6144),
    attentions: int = 2,
    sparse: tuple[str, ...] = ("feed_forward", "qkv", "loss"),
    layers: tuple[str, ...] | None = None,
    encoder_layers: tuple[str, ...] = ("dense",),
    block: int = 64,
    rank: int = 16,
    modules: int = 16,
    share_qk: bool = False,
    loss_modules: int = 4,
    recurrence: tuple[int, int] | None = (1, 32),
    two_streams: bool = True,
    encoder_swaps: int = 2,
    forget: int | None = None,
    chunk: int = 128,
    rounds: int = 4,
    buckets: int | tuple[int, ...] | None = None,
    strict: bool = False,
    positions: str = "fixed_base",
    length: int = 2048,
    dropout: float = 0.1,
    feed_forward_chunk: int | None = None,
) -> EncoderDecoder:
    """The complete model, at the 800M class. hidden, attentions, sparse, block to loss_modules: as in scaling_transformer.

    layers: kinds of attention, which decoder blocks take in turn: "mult_conv", "dense", "lsh" with shared queries and keys,
    "lsh_mult_conv" with both; None: sparse or dense, as `sparse` says. encoder_layers: the same for the encoder. chunk,
    rounds, buckets and strict: of hashing. recurrence: depth and width of the branch beside each feed-forward.
    two_streams: both streams of the encoder go on into the decoder; otherwise their mean does, behind a matrix and a norm.
    encoder_swaps: of the streams in an encoder block, 2 or 1. forget: after so many decoder blocks the streams are averaged
    and begin anew. positions and length: as in scaling_transformer.
    """
    sparsity = Sparsity(sparse, block, rank, modules, share_qk, loss_modules)
    if encoder_swaps not in (1, 2) or (forget is not None and forget < 1):
        what = f"encoder_swaps={encoder_swaps} and forget={forget}"
        raise ConfigError(f"{what}: a block swaps once or twice, and forgets after 1 block or more")
    norm, feed_forward = LayerNorm(eps=1e-6), sparsity.feed_forward(hidden, feed_forward_chunk)
    if recurrence is not None:
        feed_forward = Parallel((feed_forward, SRUBranch(*recurrence)), norm)
    kinds = attention_kinds(sparsity, heads, LSH(chunk, rounds, buckets, strict=strict))
    residual, usual = PreNorm(norm, dropout), ("mult_conv",) if sparsity.has("qkv") else ("dense",)
    reads = turns(kinds, encoder_layers, 1, feed_forward, residual, encoder_depth)
    writes = turns(kinds, usual if layers is None else layers, attentions, feed_forward, residual, depth)
    encoder = Reversible(reads, "concatenate" if two_streams else "mean", last_swap=encoder_swaps == 2)
    stream = AfterEncoder(forgetting(writes, forget or depth, two_streams=two_streams))
    embedding = Embedding(position_of(positions, dim, length), scaled=True, dropout=dropout)
    source = (encoder,) if two_streams else (encoder, Linear())
    last = None if two_streams else norm
    return EncoderDecoder(
        "terraformer",
        Encoder("terraformer.source", vocab, dim, source, embedding, last, init=Xavier()),
        Decoder("terraformer.target", vocab, dim, (stream,), embedding, norm, sparsity.head(), Xavier()),
    )


def attention_kinds(sparsity: Sparsity, heads: int, hashing: LSH) -> dict[str, Attention]:
    """The kinds of attention by name."""
    both = MultConv(sparsity.modules, share_qk="unit")
    hashed = Attention(heads, position=SelfLast(), projection=both, scale=1.0, select=hashing)
    return {
        "dense": sparsity.dense_attention(heads),
        "mult_conv": sparsity.sparse_attention(heads),
        "lsh": lsh_attention(heads, hashing),
        "lsh_mult_conv": hashed,
    }


def turns(
    kinds: dict[str, Attention], names: tuple[str, ...], times: int, last: Layer, residual: PreNorm, depth: int
) -> tuple[Block, ...]:
    """`depth` blocks that take their kind of attention, `times` of it, from the names in turn."""
    if unknown := [name for name in names if name not in kinds]:
        raise ConfigError(f"terraformer has no layers named {unknown[0]!r}: {mean(unknown[0], kinds)}")
    if not names:
        raise ConfigError(f"no kind of attention is named: layers=({next(iter(kinds))!r},)")
    return tuple(Block((kinds[name],) * times + (last,), residual) for name in islice(cycle(names), depth))


def forgetting(blocks: tuple[Block, ...], every: int, *, two_streams: bool) -> tuple[Layer, ...]:
    """Reversible stacks of `every` blocks; between them the streams are one, which a matrix mixes."""
    first, *rest = pieces(len(blocks), every) or [slice(0)]
    parts: list[Layer] = [Reversible(blocks[first], "mean", "given" if two_streams else "copied")]
    for some in rest:
        parts += [Linear(), Reversible(blocks[some], "mean")]
    return tuple(parts)
