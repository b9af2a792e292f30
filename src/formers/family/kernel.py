"""Members whose attention goes by features of queries and keys: Performer, and random feature attention."""

from formers.attention import Attention
from formers.attention.kernel import (
    ArcCosine,
    FeatureMap,
    KernelAttention,
    KernelCrossAttention,
    Positive,
    RandomFourier,
    ReLUKernel,
)
from formers.block import Block, stack
from formers.embedding import Embedding
from formers.encoder_decoder import EncoderDecoder
from formers.errors import ConfigError
from formers.family.originals import SMALL
from formers.family.registry import member
from formers.feedforward import MLP
from formers.head import MaskedLM
from formers.init import Xavier
from formers.model import Decoder, Encoder
from formers.position import Learned, Sinusoidal
from formers.residual import PostNorm, PreNorm
from formers.spec.codec import mean

FEW, MORE = SMALL | {"features": 12}, SMALL | {"features": 32}


@member("Performer", paper="arXiv:2009.14794", year=2020, cost="n·m", small=FEW | {"redraw": 2})
def performer(
    vocab: int = 258,
    dim: int = 512,
    depth: int = 6,
    heads: int = 8,
    hidden: int = 2048,
    features: int = 256,
    redraw: int | None = 1000,
    kernel: str = "softmax",
    dropout: float = 0.1,
) -> Decoder:
    """A language model with FAVOR+ in every layer. kernel: "softmax", or "relu", the generalised attention."""
    attention = KernelAttention(heads, features=performer_features(kernel, features, redraw))
    return _language_model("performer", vocab, dim, depth, hidden, dropout, attention)


@member("Performer, encoder", paper="arXiv:2009.14794", year=2020, cost="n·m", small=FEW | {"length": 64, "redraw": 2})
def performer_encoder(
    vocab: int = 30_522,
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
    hidden: int = 3072,
    length: int = 8192,
    features: int = 256,
    redraw: int | None = 1000,
    kernel: str = "relu",
    dropout: float = 0.1,
) -> Encoder:
    """BERT with attention in both directions by features, as the paper's protein models have it, which read 8,192 tokens."""
    attention = KernelAttention(heads, features=performer_features(kernel, features, redraw))
    blocks = stack(Block((attention, MLP(hidden)), PreNorm(dropout=dropout)), times=depth)
    embedding = Embedding(Learned(length), dropout=dropout)
    return Encoder("performer_encoder", vocab, dim, blocks, embedding, head=MaskedLM())


def performer_features(kernel: str, features: int, redraw: int | None) -> FeatureMap:
    """The feature map of that name."""
    kinds = {"softmax": Positive, "relu": ReLUKernel}
    if kernel not in kinds:
        raise ConfigError(f"a Performer has no kernel {kernel!r}: {mean(kernel, kinds)}")
    return kinds[kernel](features, redraw=redraw)


@member("RFA", paper="arXiv:2103.02143", year=2021, cost="n·m", small=MORE | {"pool": 3})
def rfa(
    vocab: int = 258,
    dim: int = 512,
    depth: int = 6,
    heads: int = 8,
    hidden: int = 2048,
    features: int = 128,
    pool: int = 64,
    kernel: str = "gaussian",
    dropout: float = 0.1,
) -> Decoder:
    """A language model with random feature attention. kernel: "gaussian" or "arccos"."""
    return _language_model("rfa", vocab, dim, depth, hidden, dropout, _rfa(heads, features, pool, kernel, gate=False))


@member("RFA-Gate", paper="arXiv:2103.02143", year=2021, cost="n·m", small=MORE | {"pool": 3, "kernel": "arccos"})
def rfa_gate(
    vocab: int = 258,
    dim: int = 512,
    depth: int = 6,
    heads: int = 8,
    hidden: int = 2048,
    features: int = 128,
    pool: int = 64,
    kernel: str = "gaussian",
    dropout: float = 0.1,
) -> Decoder:
    """The same with gates, by which each head learns to forget."""
    gated = _rfa(heads, features, pool, kernel, gate=True)
    return _language_model("rfa_gate", vocab, dim, depth, hidden, dropout, gated)


@member("RFA, to translate", paper="arXiv:2103.02143", year=2021, cost="n·m", small=MORE | {"pool": 3})
def rfa_translation(
    vocab: int = 37_000,
    dim: int = 512,
    depth: int = 6,
    heads: int = 8,
    hidden: int = 2048,
    features: int = 128,
    pool: int = 64,
    kernel: str = "gaussian",
    dropout: float = 0.1,
) -> EncoderDecoder:
    """The vanilla encoder-decoder whose decoder has random features in both attentions: its state does not grow."""
    embedding = Embedding(Sinusoidal(), scaled=True, dropout=dropout)
    feed_forward, residual = MLP(hidden, "relu"), PostNorm(dropout=dropout)
    across = KernelCrossAttention(heads, features=_rfa_features(kernel, features, pool))
    reads = Block((Attention(heads), feed_forward), residual)
    writes = Block((_rfa(heads, features, pool, kernel, gate=False), across, feed_forward), residual)
    sides = [("source", Encoder, reads), ("target", Decoder, writes)]
    source, target = (
        kind(f"rfa_translation.{side}", vocab, dim, stack(block, times=depth), embedding, norm=None, init=Xavier())
        for side, kind, block in sides
    )
    return EncoderDecoder("rfa_translation", source, target)


def _language_model(
    name: str, vocab: int, dim: int, depth: int, hidden: int, dropout: float, attention: KernelAttention
) -> Decoder:
    blocks = stack(Block((attention, MLP(hidden)), PreNorm(dropout=dropout)), times=depth)
    return Decoder(name, vocab, dim, blocks, Embedding(Sinusoidal(), dropout=dropout))


def _rfa(heads: int, features: int, pool: int, kernel: str, *, gate: bool) -> KernelAttention:
    return KernelAttention(heads, features=_rfa_features(kernel, features, pool), gate=gate)


def _rfa_features(kernel: str, features: int, pool: int) -> FeatureMap:
    kinds = {"gaussian": RandomFourier, "arccos": ArcCosine}
    if kernel not in kinds:
        raise ConfigError(f"random feature attention has no kernel {kernel!r}: {mean(kernel, kinds)}")
    return kinds[kernel](features, pool)
