"""Adaptive depth: one block applied as often as each token needs."""

from formers.depth.halting import ACT
from formers.depth.separable import SeparableConv
from formers.depth.universal import Universal

__all__ = ["ACT", "SeparableConv", "Universal"]
