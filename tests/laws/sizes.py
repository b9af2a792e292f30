"""The size of the small models that the laws are held against."""

from typing import Any

from formers import MLP, Attention, Block, Decoder, Embedding, SelfLast, SharedQK, stack
from formers.call import Layer

VOCAB, DIM, HEADS, LENGTH = 40, 32, 4, 64

# Queries that are their own keys, as hashing and routing want them.
ALIKE = Attention(HEADS, projection=SharedQK(), position=SelfLast(), scale=1.0)


def decoder(name: str, attention: Layer, embedding: Embedding | None = None, **fields: Any) -> Decoder:
    block = Block((attention, MLP(48)))
    return Decoder(name, VOCAB, DIM, stack(block, times=2), embedding or Embedding(), **fields)
