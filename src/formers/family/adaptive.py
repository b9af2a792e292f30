"""Members whose depth adapts to the token: the Universal Transformer and CALM, as language models and to translate."""

from typing import Any, Literal

from formers.attention import Attention, CrossAttention, Dense
from formers.block import Block, stack
from formers.call import Layer
from formers.depth import ACT, SeparableConv, Universal
from formers.embedding import Embedding
from formers.encoder_decoder import EncoderDecoder
from formers.errors import ConfigError
from formers.exits import Decay, Exits, LearnedConfidence, Saturation, SoftmaxResponse
from formers.family.originals import SMALL
from formers.family.registry import member
from formers.feedforward import GLU, MLP
from formers.head import Untied
from formers.model import Decoder, Encoder
from formers.norm import RMSNorm
from formers.position import Rotary, T5Buckets
from formers.residual import PostNorm, PreNorm

Transition = Literal["dense", "separable"]
Halted = Literal["transformed", "copied"]
TINY = {"vocab": 40, "dim": 32, "heads": 4, "hidden": 24, "steps": 3}


def universal_depth(
    sublayers: tuple[Layer, ...],
    steps: int,
    hidden: int,
    transition: Transition,
    ponder: float | None,
    halted: Halted,
    dropout: float,
) -> Universal:
    """One block of those sublayers and a transition, with halting where pondering has a price."""
    kinds = {"dense": MLP(hidden, "relu", dropout=dropout), "separable": SeparableConv(hidden, dropout=dropout)}
    if transition not in kinds:
        raise ConfigError(f"there is no transition named {transition!r}: transition='dense'")
    block = Block((*sublayers, kinds[transition]), PostNorm(dropout=dropout))
    return Universal(block, steps, None if ponder is None else ACT(ponder=ponder, halted=halted), time="learned")


@member("Universal Transformer", paper="arXiv:1807.03819", year=2018, cost="n²", small=TINY)
def universal(
    vocab: int = 258,
    dim: int = 1024,
    steps: int = 12,
    heads: int = 16,
    hidden: int = 4096,
    transition: Transition = "dense",
    ponder: float | None = 0.01,
    halted: Halted = "transformed",
    dropout: float = 0.1,
) -> Decoder:
    """A decoder of one block, applied to each token up to `steps` times, as often as it needs.

    transition: "dense" or "separable", the feed-forward or the convolutions. ponder: the price of a step in the loss;
    None: no halting, every token takes all steps. halted: see `ACT`.
    """
    depth = universal_depth((Attention(heads, dropout=dropout),), steps, hidden, transition, ponder, halted, dropout)
    return Decoder("universal", vocab, dim, (depth,), Embedding(scaled=True, dropout=dropout))


@member(
    "Universal Transformer, to translate",
    paper="arXiv:1807.03819",
    year=2018,
    cost="n²",
    small=TINY | {"transition": "separable"},
)
def universal_encoder_decoder(
    vocab: int = 37_000,
    dim: int = 1024,
    steps: int = 12,
    heads: int = 16,
    hidden: int = 4096,
    transition: Transition = "dense",
    ponder: float | None = 0.01,
    halted: Halted = "transformed",
    dropout: float = 0.1,
) -> EncoderDecoder:
    """An encoder of one block and a decoder of another, each with a halting and a ponder cost of its own."""
    attention, across = Attention(heads, dropout=dropout), CrossAttention(heads, dropout=dropout)
    said = (steps, hidden, transition, ponder, halted, dropout)
    reads, writes = universal_depth((attention,), *said), universal_depth((attention, across), *said)
    embedding = Embedding(scaled=True, dropout=dropout)
    return EncoderDecoder(
        "universal_encoder_decoder",
        Encoder("universal_encoder_decoder.source", vocab, dim, (reads,), embedding),
        Decoder("universal_encoder_decoder.target", vocab, dim, (writes,), embedding),
    )


Measure = Literal["softmax", "saturation", "learned"]
CONFIDENCE = {"softmax": SoftmaxResponse, "saturation": Saturation, "learned": LearnedConfidence}


def calm_depth(
    sublayers: tuple[Layer, ...],
    depth: int,
    confidence: Measure,
    threshold: float | None,
    decay: float | None,
    length: int,
    dropout: float,
) -> Exits:
    """Blocks of those sublayers, which a token leaves when it is confident by that measure."""
    if confidence not in CONFIDENCE:
        raise ConfigError(f"there is no confidence named {confidence!r}: confidence='softmax'")
    rule = CONFIDENCE[confidence](threshold, None if decay is None else Decay(decay, length))
    return Exits(stack(Block(sublayers, PreNorm(RMSNorm(), dropout)), times=depth), rule, norm=RMSNorm())


@member("CALM", paper="arXiv:2207.07061", year=2022, cost="n²", small=SMALL | {"depth": 3, "threshold": 0.03})
def calm(
    vocab: int = 258,
    dim: int = 512,
    depth: int = 8,
    heads: int = 8,
    hidden: int = 1024,
    confidence: Measure = "softmax",
    threshold: float | None = None,
    decay: float | None = None,
    length: int = 1024,
    dropout: float = 0.1,
) -> Decoder:
    """A decoder that each token leaves at the first exit that is sure of the next one.

    confidence: "softmax", "saturation" or "learned", see `SoftmaxResponse`, `Saturation`, `LearnedConfidence`. threshold:
    of it; None: no token leaves before a calibration finds one (`formers calibrate`). decay: the rate at which the
    threshold falls along a text of `length` tokens, the paper's tau; None: it does not.
    """
    attention = Attention(heads, position=Rotary(), projection=Dense(bias=False), dropout=dropout)
    exits = calm_depth((attention, GLU(hidden)), depth, confidence, threshold, decay, length, dropout)
    return Decoder("calm", vocab, dim, (exits,), Embedding(dropout=dropout), RMSNorm())


@member(
    "CALM, to translate",
    paper="arXiv:2207.07061",
    year=2022,
    cost="n²",
    small=SMALL | {"depth": 3, "head_dim": 8, "confidence": "saturation", "threshold": 0.5},
)
def calm_encoder_decoder(
    vocab: int = 32_128,
    dim: int = 512,
    depth: int = 8,
    heads: int = 6,
    head_dim: int = 64,
    hidden: int = 1024,
    confidence: Measure = "softmax",
    threshold: float | None = None,
    decay: float | None = None,
    length: int = 512,
    dropout: float = 0.1,
) -> EncoderDecoder:
    """The paper's model: T5 1.1, of which every token of the decoder leaves when it is sure. Arguments as of `calm`.

    Each layer has a table of distances to itself, where T5's layers share one.
    """
    plain: dict[str, Any] = {"head_dim": head_dim, "projection": Dense(bias=False), "dropout": dropout}
    attention, across = Attention(heads, position=T5Buckets(), **plain), CrossAttention(heads, **plain)
    feed_forward, norm, embedding = GLU(hidden, "gelu_tanh"), RMSNorm(), Embedding(dropout=dropout)
    reads = stack(Block((attention, feed_forward), PreNorm(norm, dropout)), times=depth)
    sublayers = (attention, across, feed_forward)
    exits = calm_depth(sublayers, depth, confidence, threshold, decay, length, dropout)
    return EncoderDecoder(
        "calm_encoder_decoder",
        Encoder("calm_encoder_decoder.source", vocab, dim, reads, embedding, norm),
        Decoder("calm_encoder_decoder.target", vocab, dim, (exits,), embedding, norm, Untied()),
    )
