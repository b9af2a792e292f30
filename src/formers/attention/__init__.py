"""Attention: patterns, plans, projections, and the executor that runs them."""

from formers.attention.averaged import AveragedQK
from formers.attention.cross import CrossAttention
from formers.attention.layer import Attention
from formers.attention.lsh import LSH
from formers.attention.mult_conv import MultConv
from formers.attention.pattern import Blocks, Both, Causal, Either, Everything, Pattern, Same, Window
from formers.attention.project import Dense, Projection
from formers.attention.routing import Routing
from formers.attention.select import Selector
from formers.attention.shared_qk import SharedQK
from formers.attention.sinkhorn import SinkhornAttention
from formers.attention.sparse_cross import SparseQueries
from formers.attention.sparse_project import Convolutional, LowRank, Modular, Multiplicative, MultiplicativeModular
from formers.attention.top_blocks import TopBlocks

__all__ = [
    "LSH",
    "Attention",
    "AveragedQK",
    "Blocks",
    "Both",
    "Causal",
    "Convolutional",
    "CrossAttention",
    "Dense",
    "Either",
    "Everything",
    "LowRank",
    "Modular",
    "MultConv",
    "Multiplicative",
    "MultiplicativeModular",
    "Pattern",
    "Projection",
    "Routing",
    "Same",
    "Selector",
    "SharedQK",
    "SinkhornAttention",
    "SparseQueries",
    "TopBlocks",
    "Window",
]
