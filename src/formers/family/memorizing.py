"""The Memorizing Transformer: one layer of a decoder also looks up the nearest of many past keys."""

from formers.attention import Attention, Blocks, Causal, Dense
from formers.attention.memorizing import MemorizingAttention
from formers.block import Block
from formers.errors import ConfigError
from formers.family.originals import SMALL
from formers.family.registry import member
from formers.feedforward import MLP
from formers.model import Decoder
from formers.position import T5Buckets
from formers.residual import PreNorm


@member(
    "Memorizing Transformer",
    paper="arXiv:2203.08913",
    year=2022,
    cost="n·w + n·m",
    small=SMALL | {"segment": 10, "memory": 14, "top_k": 3, "layers": (2,)},
)
def memorizing_transformer(
    vocab: int = 32_000,
    dim: int = 1024,
    depth: int = 12,
    heads: int = 8,
    hidden: int = 4096,
    segment: int = 512,
    memory: int = 65_536,
    top_k: int = 32,
    layers: tuple[int, ...] = (9,),
    dropout: float = 0.0,
) -> Decoder:
    """Every layer sees its segment and the one before; those numbered in `layers`, counted from 1, remember more."""
    if beyond := [number for number in layers if not 1 <= number <= depth]:
        raise ConfigError(
            f"memorizing_transformer has layers 1 to {depth}, and no layer {beyond[0]} that could have a memory: "
            f"layers=({max(1, round(0.75 * depth))},)"
        )
    position, projection = T5Buckets(), Dense(bias=False)
    pattern = Causal() & Blocks(segment, before=1)
    local = Attention(heads, pattern=pattern, position=position, projection=projection, dropout=dropout)
    memorizing = MemorizingAttention(
        heads, segment, memory, top_k, position=position, projection=projection, dropout=dropout
    )
    feed_forward, residual = MLP(hidden, "relu"), PreNorm(dropout=dropout)
    kinds = (memorizing if number in layers else local for number in range(1, depth + 1))
    blocks = tuple(Block((attention, feed_forward), residual) for attention in kinds)
    return Decoder("memorizing_transformer", vocab, dim, blocks)
