"""Attention by features of queries and keys: sums over keys in place of scores, at a cost that grows with the length."""

from formers.attention.kernel.cross import KernelCrossAttention
from formers.attention.kernel.features import FeatureMap, Hyperbolic, Positive, ReLUKernel, Trigonometric
from formers.attention.kernel.fourier import ArcCosine, RandomFourier
from formers.attention.kernel.layer import KernelAttention

__all__ = [
    "ArcCosine",
    "FeatureMap",
    "Hyperbolic",
    "KernelAttention",
    "KernelCrossAttention",
    "Positive",
    "RandomFourier",
    "ReLUKernel",
    "Trigonometric",
]
