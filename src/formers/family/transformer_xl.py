"""Transformer-XL: segments that remember what their layers were given in the segments before."""

from formers.attention import Attention, Causal, Dense, Segments
from formers.block import Block, stack
from formers.embedding import Embedding
from formers.family.originals import SMALL
from formers.family.registry import member
from formers.feedforward import MLP
from formers.layer_inputs import KeepInputs
from formers.model import Decoder
from formers.position import TransformerXL
from formers.residual import PostNorm


@member(
    "Transformer-XL",
    paper="arXiv:1901.02860",
    year=2019,
    cost="n (segment + memory)",
    small=SMALL | {"segment": 4, "memory": 6},
)
def transformer_xl(
    vocab: int = 258,
    dim: int = 512,
    depth: int = 12,
    heads: int = 8,
    hidden: int = 2048,
    segment: int = 512,
    memory: int = 512,
    clamp: int | None = None,
    dropout: float = 0.1,
    attention_dropout: float = 0.0,
) -> Decoder:
    """A post-norm decoder with relative positions and segment-level recurrence. Defaults: 12 layers on enwik8.

    Train it on rows of one segment each; its state is carried from step to step. clamp: distances beyond it count as it.
    Differs from the released code: no adaptive softmax, no dropout of the sinusoids, and u and v are each layer's own.
    """
    attention = Attention(
        heads,
        pattern=Causal() & Segments(segment, memory),
        position=TransformerXL(clamp),
        projection=Dense(bias=False),
        memory=KeepInputs(),
        dropout=attention_dropout,
    )
    block = Block((attention, MLP(hidden, "relu", dropout=dropout)), PostNorm(dropout=dropout))
    embedding = Embedding(scaled=True, dropout=dropout)
    return Decoder("transformer_xl", vocab, dim, stack(block, times=depth), embedding, norm=None)
