"""The cases of `formers claim`: importing this package registers them."""

from formers.claim.cases import multi30k, nanogpt, reformer, reversible, routing, sinkhorn

__all__ = ["multi30k", "nanogpt", "reformer", "reversible", "routing", "sinkhorn"]
