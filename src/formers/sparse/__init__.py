"""Sparse layers: Scaling Transformers and Terraformer, Jaszczur et al. 2021, arXiv:2111.12763."""

from formers.sparse.convolution import ModuleConv
from formers.sparse.experts import BlockFF, SwitchFF
from formers.sparse.feedforward import SparseFF
from formers.sparse.head import LocalHead, LowRankHead, Mixed, MultiplicativeHead
from formers.sparse.low_rank import LowRankLinear
from formers.sparse.modular import ModularLinear
from formers.sparse.multiplicative import MultiplicativeLinear
from formers.sparse.usage import UnitCounts, Usage, usage

__all__ = [
    "BlockFF",
    "LocalHead",
    "LowRankHead",
    "LowRankLinear",
    "Mixed",
    "ModularLinear",
    "ModuleConv",
    "MultiplicativeHead",
    "MultiplicativeLinear",
    "SparseFF",
    "SwitchFF",
    "UnitCounts",
    "Usage",
    "usage",
]
