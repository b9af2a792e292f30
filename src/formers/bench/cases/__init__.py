"""The cases of `formers bench`: importing this package registers them."""

from formers.bench.cases import decode, train

__all__ = ["decode", "train"]
