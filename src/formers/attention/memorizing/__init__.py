"""Attention that also looks up the nearest of many past keys. Memorizing Transformer, arXiv:2203.08913."""

from formers.attention.memorizing.layer import MemorizingAttention
from formers.attention.memorizing.search import ApproximateSearch, ExactSearch, Search

__all__ = ["ApproximateSearch", "ExactSearch", "MemorizingAttention", "Search"]
