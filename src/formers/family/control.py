"""Members made for control: GTrXL, a Transformer-XL whose training stays stable where rewards are all that it learns from."""

from formers.attention import Attention, Causal, Dense, Pattern, Segments
from formers.block import Block, stack
from formers.embedding import Embedding
from formers.family.originals import SMALL
from formers.family.registry import member
from formers.feedforward import MLP
from formers.layer_inputs import KeepInputs
from formers.model import Decoder
from formers.position import TransformerXL
from formers.residual.gated import Gate, Gated, GRUGate


def gtrxl_block(
    heads: int,
    hidden: int,
    pattern: Pattern,
    *,
    gate: Gate | None = GRUGate(),
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
) -> Block:
    """Transformer-XL's attention and feed-forward, each behind a gate. gate: None is the ablation TrXL-I."""
    attention = Attention(
        heads,
        pattern=pattern,
        position=TransformerXL(),
        projection=Dense(bias=False),
        memory=KeepInputs(),
        dropout=attention_dropout,
    )
    return Block((attention, MLP(hidden, "relu", dropout=dropout)), Gated(gate=gate, dropout=dropout))


@member(
    "GTrXL",
    paper="arXiv:1910.06764",
    year=2019,
    cost="n (segment + memory)",
    small=SMALL | {"segment": 4, "memory": 6},
)
def gtrxl(
    vocab: int = 258,
    dim: int = 256,
    depth: int = 12,
    heads: int = 8,
    hidden: int = 1024,
    segment: int = 128,
    memory: int = 512,
    bias: float = 2.0,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
) -> Decoder:
    """A gated Transformer-XL as a language model. Defaults: the depth, width and memory of the paper's agent on DMLab-30.

    As an agent it is `formers.control.agent.gtrxl_agent`.

    Train it on rows of one segment each; its state is carried from step to step. bias: where the gates' b_g begins; above 0
    every block begins close to the identity. Differs from the paper: attention's inputs are remembered behind the norm, as
    it was when they were read, where the paper norms the remembered stream anew.
    """
    pattern = Causal() & Segments(segment, memory)
    gate = GRUGate(bias)
    block = gtrxl_block(heads, hidden, pattern, gate=gate, dropout=dropout, attention_dropout=attention_dropout)
    embedding = Embedding(scaled=True, dropout=dropout)
    return Decoder("gtrxl", vocab, dim, stack(block, times=depth), embedding, norm=None)
