"""The cases of `formers claim`: importing this package registers them."""

from formers.claim.cases import multi30k, nanogpt, reformer, reversible, routing, scaling, sinkhorn

__all__ = ["multi30k", "nanogpt", "reformer", "reversible", "routing", "scaling", "sinkhorn"]
