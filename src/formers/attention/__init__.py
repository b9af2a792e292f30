"""Attention: patterns, plans, projections, and the executor that runs them."""

from formers.attention.layer import Attention, CrossAttention
from formers.attention.pattern import Blocks, Both, Causal, Either, Everything, Pattern, Same, Window
from formers.attention.project import Dense, Projection
from formers.attention.select import Selector

__all__ = [
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
    "Same",
    "Selector",
    "Window",
]
