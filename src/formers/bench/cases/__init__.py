"""The cases of `formers bench`: importing this package registers them."""

from formers.bench.cases import (
    beyond_memory,
    busy_core,
    content,
    decode,
    decode_dense,
    million,
    reversible,
    scaling,
    sparse_training,
    train,
)

__all__ = [
    "beyond_memory",
    "busy_core",
    "content",
    "decode",
    "decode_dense",
    "million",
    "reversible",
    "scaling",
    "sparse_training",
    "train",
]
