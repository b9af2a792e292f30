"""ETC: a long input that is read through a short global one."""

from formers.attention.global_local_layer import GlobalLocalAttention
from formers.attention.patterns.global_local import GlobalLocal, Piece
from formers.block import Block, stack
from formers.embedding import Embedding
from formers.family.originals import SMALL
from formers.family.registry import member
from formers.feedforward import MLP
from formers.head import MaskedLM
from formers.model import Encoder
from formers.norm import LayerNorm
from formers.position import RelativeLabels
from formers.residual import PostNorm


@member("ETC", paper="arXiv:2004.08483", year=2020, cost="n·(r + g)", small=SMALL | {"radius": 4, "reach": 3})
def etc(
    vocab: int = 30_522,
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
    hidden: int | None = None,
    radius: int = 84,
    reach: int = 12,
    hard: tuple[Piece, ...] = (),
    separate: bool = False,
    dropout: float = 0.1,
) -> Encoder:
    """A post-norm encoder of sentences, each summed up by a global token; the paper's has 4,096 long tokens and 230
    global ones, any numbers of both run. See `GlobalLocalAttention` for the marks and for what is shared.

    Differs from the authors' code: the norm after attention is shared by both inputs.
    """
    norm = LayerNorm(eps=1e-12)
    attention = GlobalLocalAttention(heads, GlobalLocal(radius, hard), RelativeLabels(reach), separate, dropout)
    block = Block((attention, MLP(hidden or 4 * dim)), PostNorm(norm, dropout))
    embedding = Embedding(norm=norm, dropout=dropout)
    return Encoder("etc", vocab, dim, stack(block, times=depth), embedding, norm=None, head=MaskedLM())
