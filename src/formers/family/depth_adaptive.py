"""The Depth-Adaptive Transformer: blocks that each token leaves where it has learned to, to translate and as a decoder."""

from typing import Literal

from formers.attention import Attention, CrossAttention
from formers.block import Block, stack
from formers.call import Layer
from formers.embedding import Embedding
from formers.encoder_decoder import EncoderDecoder
from formers.errors import ConfigError
from formers.exits import Exits
from formers.exits.halting import (
    CorrectnessOracle,
    GeometricHalting,
    LikelihoodOracle,
    MultinomialHalting,
    SequenceHalting,
)
from formers.exits.halting.rules import Halting
from formers.family.originals import SMALL
from formers.family.registry import member
from formers.feedforward import MLP
from formers.head import Untied
from formers.init import Xavier
from formers.model import Decoder, Encoder
from formers.position import Rotary, Sinusoidal
from formers.residual import PostNorm, PreNorm, Residual

Kind = Literal["sequence", "multinomial", "geometric"]
Oracle = Literal["correctness", "likelihood"]
RULES = {"sequence": SequenceHalting, "multinomial": MultinomialHalting, "geometric": GeometricHalting}
ORACLES = {"correctness": CorrectnessOracle, "likelihood": LikelihoodOracle}


def halting_rule(halting: Kind, oracle: Oracle, price: float, spread: float, weight: float) -> Halting:
    """The rule of that kind that learns from that oracle. Raises ConfigError where there is none."""
    if halting not in RULES:
        raise ConfigError(f"there is no halting named {halting!r}: halting='geometric', 'multinomial' or 'sequence'")
    if oracle not in ORACLES:
        raise ConfigError(f"there is no oracle named {oracle!r}: oracle='correctness' or 'likelihood'")
    return RULES[halting](ORACLES[oracle](price, spread), weight)


def exits_after_each(
    sublayers: tuple[Layer, ...], depth: int, residual: Residual, rule: Halting, separate: bool
) -> Exits:
    """Blocks of those sublayers, with exits that count alike in training."""
    blocks = stack(Block(sublayers, residual), times=depth)
    return Exits(blocks, rule, Untied() if separate else None, weights="even")


@member(
    "Depth-Adaptive Transformer",
    paper="arXiv:1910.10073",
    year=2020,
    cost="n²",
    small=SMALL | {"depth": 3},
)
def depth_adaptive(
    vocab: int = 10_000,
    dim: int = 512,
    depth: int = 6,
    heads: int = 4,
    hidden: int = 1024,
    halting: Kind = "geometric",
    oracle: Oracle = "correctness",
    price: float = 0.02,
    spread: float = 0.0,
    weight: float = 0.1,
    separate: bool = False,
    dropout: float = 0.3,
) -> EncoderDecoder:
    """The vanilla encoder-decoder, whose decoder each token leaves after the block where its classifier says so.

    halting: "geometric", a decision behind each block; "multinomial", all decided behind the first; "sequence", decided
    for the whole target by the mean of the encoder's output. oracle: "correctness" or "likelihood" of the target at each
    exit, of which each block costs `price` and which `spread` smooths over near tokens; see `ExitOracle`. weight: of the
    loss of halting. separate: whether exits have classifiers of their own. The defaults are those for IWSLT'14.
    """
    rule = halting_rule(halting, oracle, price, spread, weight)
    residual, embedding = PostNorm(dropout=dropout), Embedding(Sinusoidal(), scaled=True, dropout=dropout)
    reads = stack(Block((Attention(heads), MLP(hidden, "relu")), residual), times=depth)
    writes = (Attention(heads), CrossAttention(heads), MLP(hidden, "relu"))
    exits = exits_after_each(writes, depth, residual, rule, separate)
    source = Encoder("depth_adaptive.source", vocab, dim, reads, embedding, norm=None, init=Xavier())
    target = Decoder("depth_adaptive.target", vocab, dim, (exits,), embedding, norm=None, init=Xavier())
    return EncoderDecoder("depth_adaptive", source, target)


@member(
    "Depth-Adaptive Transformer, a decoder",
    paper="arXiv:1910.10073",
    year=2020,
    cost="n²",
    small=SMALL | {"depth": 3, "halting": "multinomial"},
)
def depth_adaptive_lm(
    vocab: int = 258,
    dim: int = 512,
    depth: int = 8,
    heads: int = 8,
    hidden: int = 2048,
    halting: Kind = "geometric",
    oracle: Oracle = "correctness",
    price: float = 0.02,
    spread: float = 0.0,
    weight: float = 0.1,
    separate: bool = False,
    dropout: float = 0.1,
) -> Decoder:
    """The same without an encoder, as a language model; halting is "geometric" or "multinomial". Arguments as of
    `depth_adaptive`."""
    rule = halting_rule(halting, oracle, price, spread, weight)
    attention = Attention(heads, position=Rotary(), dropout=dropout)
    exits = exits_after_each((attention, MLP(hidden)), depth, PreNorm(dropout=dropout), rule, separate)
    return Decoder("depth_adaptive_lm", vocab, dim, (exits,), Embedding(dropout=dropout))
