"""The Feedback Transformer."""

from formers.embedding import Embedding
from formers.family.originals import SMALL
from formers.family.registry import member
from formers.feedback import Feedback
from formers.feedforward import MLP
from formers.head import Untied
from formers.model import Decoder
from formers.residual import PreNorm


@member(
    "Feedback Transformer",
    paper="arXiv:2002.09402",
    year=2020,
    cost="n·w",
    small=SMALL | {"reach": 5},
)
def feedback_transformer(
    vocab: int = 258,
    dim: int = 512,
    depth: int = 12,
    heads: int = 8,
    hidden: int = 4096,
    head_dim: int | None = None,
    reach: int = 256,
    dropout: float = 0.1,
) -> Decoder:
    """Layers that all attend to one memory of past tokens, made of what every layer made of them.

    Sizes as the released code has them for enwik8, pre-norm too; there heads are 128 wide (head_dim=128), dropout is 0.5,
    and adaptive spans reach up to 8,192 tokens back, which `reach` has for all heads at a price.
    """
    layers = Feedback(depth, heads, MLP(hidden, "relu"), reach, head_dim, PreNorm(dropout=dropout))
    return Decoder("feedback_transformer", vocab, dim, (layers,), Embedding(dropout=dropout), head=Untied(bias=True))
