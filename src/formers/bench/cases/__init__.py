"""The cases of `formers bench`: importing this package registers them."""

from formers.bench.cases import (
    attention,
    attention_decode,
    beyond_memory,
    busy_core,
    content,
    decode,
    decode_dense,
    decode_rivals,
    million,
    reversible,
    scaling,
    sparse_training,
    train,
)

__all__ = [
    "attention",
    "attention_decode",
    "beyond_memory",
    "busy_core",
    "content",
    "decode",
    "decode_dense",
    "decode_rivals",
    "million",
    "reversible",
    "scaling",
    "sparse_training",
    "train",
]
