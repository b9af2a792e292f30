"""SPALM: a Transformer-XL that also reads, for each token, what followed alike contexts elsewhere."""

from typing import Any

from formers.family.originals import SMALL
from formers.family.registry import member
from formers.family.transformer_xl import transformer_xl
from formers.model import Decoder
from formers.retrieval import RetrievalGate


@member(
    "SPALM",
    paper="arXiv:2102.02557",
    year=2021,
    cost="n (segment + memory)",
    small=SMALL | {"segment": 4, "memory": 6},
)
def spalm(
    vocab: int = 33_060,
    dim: int = 512,
    depth: int = 18,
    heads: int = 8,
    hidden: int = 2048,
    segment: int = 512,
    memory: int = 512,
    dropout: float = 0.1,
) -> Decoder:
    """Transformer-XL's memory of what it has read, and a gate to the tokens that a datastore finds for each place.

    What is found is an input: `model(tokens, retrieved=(B, T, k))`, see docs/datastore.md.
    Differs from the paper: no adaptive softmax.
    """
    sizes = {"dim": dim, "depth": depth, "heads": heads, "hidden": hidden, "segment": segment, "memory": memory}
    trunk: Any = transformer_xl(vocab, **sizes, dropout=dropout)
    spec: Decoder = trunk.replace(name="spalm", blocks=(*trunk.blocks, RetrievalGate()))
    return spec
