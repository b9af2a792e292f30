"""The Compressive Transformer: a Transformer-XL whose oldest memories are compressed before they are forgotten."""

from typing import Literal

from formers.attention import Attention, Dense
from formers.attention.compressive.compression import ConvCompression, SegmentCompression
from formers.attention.compressive.memory import CompressiveMemory
from formers.block import Block, stack
from formers.embedding import Embedding
from formers.family.originals import SMALL
from formers.family.registry import member
from formers.feedforward import MLP
from formers.head import Tied
from formers.model import Decoder
from formers.position import TransformerXL
from formers.residual import PostNorm


@member(
    "Compressive Transformer",
    paper="arXiv:1911.05507",
    year=2019,
    cost="n (s + m + c)",
    small=SMALL | {"segment": 4, "memory": 4, "compressed": 3, "compression": ConvCompression(2), "dropout": 0.0},
)
def compressive_transformer(
    vocab: int = 32_000,
    dim: int = 1024,
    depth: int = 36,
    heads: int = 16,
    hidden: int = 4096,
    segment: int = 512,
    memory: int = 512,
    compressed: int = 512,
    compression: SegmentCompression = ConvCompression(2),
    loss: Literal["attention", "autoencoding"] | None = "attention",
    dropout: float = 0.1,
) -> Decoder:
    """Post-norm blocks with relative positions over segment, memory and compressed memory. Defaults: PG-19's.

    It is trained on streams, a segment a step; see docs/memory.md.
    """
    remembers = CompressiveMemory(segment, memory, compressed, compression, loss)
    attention = Attention(
        heads, position=TransformerXL(), projection=Dense(bias=False), memory=remembers, dropout=dropout
    )
    blocks = stack(Block((attention, MLP(hidden, "relu", dropout=dropout)), PostNorm(dropout=dropout)), times=depth)
    embedding = Embedding(scaled=True, dropout=dropout)
    return Decoder("compressive_transformer", vocab, dim, blocks, embedding, None, Tied(bias=True))
