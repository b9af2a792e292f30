"""Kernels in C++ for the CPU. They are optional: without them PyTorch computes the same, more slowly."""

from formers.native.hashing import add_nearest, in_order, refuses_hashing, refuses_order
from formers.native.library import missing
from formers.native.sorted_chunks import Rules, backward, forward, refuses

__all__ = [
    "Rules",
    "add_nearest",
    "backward",
    "forward",
    "in_order",
    "missing",
    "refuses",
    "refuses_hashing",
    "refuses_order",
]
