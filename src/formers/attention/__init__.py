"""Attention: patterns, plans, projections, and the executor that runs them."""

from formers.attention.layer import Attention, CrossAttention
from formers.attention.lsh import LSH
from formers.attention.pattern import Blocks, Both, Causal, Either, Everything, Pattern, Same, Window
from formers.attention.project import Dense, Projection
from formers.attention.routing import Routing
from formers.attention.select import Selector
from formers.attention.shared_qk import SharedQK
from formers.attention.sinkhorn import SinkhornAttention
from formers.attention.top_blocks import TopBlocks

__all__ = [
    "LSH",
    "Attention",
    "Blocks",
    "Both",
    "Causal",
    "CrossAttention",
    "Dense",
    "Either",
    "Everything",
    "Pattern",
    "Projection",
    "Routing",
    "Same",
    "Selector",
    "SharedQK",
    "SinkhornAttention",
    "TopBlocks",
    "Window",
]
