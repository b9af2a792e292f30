"""Members that are best known by their published weights: RoFormer and BLOOM."""

from formers.attention import Attention
from formers.block import Block, stack
from formers.embedding import Embedding
from formers.family.originals import SMALL
from formers.family.registry import member
from formers.feedforward import MLP
from formers.head import MaskedLM
from formers.model import Decoder, Encoder
from formers.norm import LayerNorm
from formers.position import ALiBi, Rotary
from formers.residual import PostNorm, PreNorm


@member("RoFormer", paper="arXiv:2104.09864", year=2021, cost="n²", small=SMALL)
def roformer(
    vocab: int = 50_000,
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
    hidden: int | None = None,
    dropout: float = 0.1,
) -> Encoder:
    """BERT with rotary positions: queries and keys are turned, neighbouring channels in pairs, and values are not."""
    norm = LayerNorm(eps=1e-12)
    attention = Attention(heads, position=Rotary(pairing="adjacent"), dropout=dropout)
    block = Block((attention, MLP(hidden or 4 * dim)), PostNorm(norm, dropout))
    embedding = Embedding(segments=2, norm=norm, dropout=dropout)
    return Encoder("roformer", vocab, dim, stack(block, times=depth), embedding, norm=None, head=MaskedLM())


@member("BLOOM", paper="arXiv:2211.05100", year=2022, cost="n²", small=SMALL)
def bloom(
    vocab: int = 250_880,
    dim: int = 1024,
    depth: int = 24,
    heads: int = 16,
    hidden: int | None = None,
    dropout: float = 0.0,
) -> Decoder:
    """ALiBi, and a norm right behind the embedding, which steadied its training. The defaults are BLOOM-560M's."""
    block = Block(
        (Attention(heads, position=ALiBi(), dropout=dropout), MLP(hidden or 4 * dim, "gelu_tanh")),
        PreNorm(dropout=dropout),
    )
    return Decoder("bloom", vocab, dim, stack(block, times=depth), Embedding(norm=LayerNorm()))
