"""Stacks that rebuild their activations going back, instead of keeping them."""

from formers.reversible.spec import Reversible, ReversibleLayer

__all__ = ["Reversible", "ReversibleLayer"]
