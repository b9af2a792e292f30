"""Kernels in C++ for the CPU. They are optional: without them PyTorch computes the same, more slowly."""

from formers.native.library import missing
from formers.native.sorted_chunks import Rules, backward, forward, refuses

__all__ = ["Rules", "backward", "forward", "missing", "refuses"]
