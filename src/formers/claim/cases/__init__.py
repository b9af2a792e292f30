"""The cases of `formers claim`: importing this package registers them."""

from formers.claim.cases import (
    adaptive_span,
    big_bird,
    blockbert,
    etc,
    image,
    longformer,
    multi30k,
    nanogpt,
    reformer,
    reversible,
    routing,
    scaling,
    sinkhorn,
    sparse_transformer,
)

__all__ = [
    "adaptive_span",
    "big_bird",
    "blockbert",
    "etc",
    "image",
    "longformer",
    "multi30k",
    "nanogpt",
    "reformer",
    "reversible",
    "routing",
    "scaling",
    "sinkhorn",
    "sparse_transformer",
]
