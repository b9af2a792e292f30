"""Matrix products of float32 by tiles (AMX), on processors that have them."""

from formers.native.gemm.library import multiply_into, refuses_tiles

__all__ = ["multiply_into", "refuses_tiles"]
