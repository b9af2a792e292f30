"""Adaptive attention span: a character model whose heads learn how far back they look."""

from formers.attention import Dense, HeadSpans, QuerySpans, SpanAttention
from formers.block import Block, stack
from formers.embedding import Embedding
from formers.family.originals import SMALL
from formers.family.registry import member
from formers.feedforward import MLP
from formers.head import Untied
from formers.model import Decoder
from formers.position import RelativeKeys
from formers.residual import PostNorm


@member(
    "Adaptive attention span",
    paper="arXiv:1905.07799",
    year=2019,
    cost="n·span",
    small=SMALL | {"span": 8, "ramp": 4, "begin": 0.5},
)
def adaptive_span(
    vocab: int = 258,
    dim: int = 512,
    depth: int = 12,
    heads: int = 8,
    hidden: int = 2048,
    span: int = 8192,
    ramp: int = 32,
    begin: float | None = None,
    dynamic: bool = False,
    penalty: float = 2e-6,
    dropout: float = 0.3,
) -> Decoder:
    """A post-norm decoder with learned spans of up to `span` tokens. Defaults: the small model on enwik8.

    dynamic: each query has a span of its own, told from its content. begin: the share of `span` that spans begin with;
    None: 0, and 0.1 where they are dynamic. dropout: of attention weights and of hidden units. Differs from the released
    code: each layer has its own table of relative positions, which makes 44M parameters of 38M, and a token sees itself.
    """
    spans = QuerySpans() if dynamic else HeadSpans()
    attention = SpanAttention(
        heads,
        span,
        ramp,
        spans if begin is None else spans.replace(begin=begin),
        penalty,
        position=RelativeKeys(span),
        projection=Dense(bias=False),
        dropout=dropout,
    )
    block = Block((attention, MLP(hidden, "relu", dropout=dropout)), PostNorm())
    return Decoder(
        "adaptive_span", vocab, dim, stack(block, times=depth), Embedding(), norm=None, head=Untied(bias=True)
    )
