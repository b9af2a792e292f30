"""The cases of `formers bench`: importing this package registers them."""

from formers.bench.cases import content, decode, million, reversible, scaling, train

__all__ = ["content", "decode", "million", "reversible", "scaling", "train"]
