"""One model made of another: the spec that it becomes, the weights that it starts from, and what it learns from the old."""

from formers.convert.dense import dense_counterpart
from formers.convert.distil import distil, missed
from formers.convert.inherit import inherit
from formers.convert.pairs import Pair, pairs_of
from formers.convert.sparse import Sparsity, sparse_counterpart

__all__ = ["Pair", "Sparsity", "dense_counterpart", "distil", "inherit", "missed", "pairs_of", "sparse_counterpart"]
