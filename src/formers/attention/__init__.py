"""Attention: patterns, plans, projections, and the executor that runs them."""

from formers.attention.averaged import AveragedQK
from formers.attention.compressive.compression import (
    ConvCompression,
    DilatedCompression,
    MaxCompression,
    MeanCompression,
    MostUsedCompression,
)
from formers.attention.compressive.memory import CompressiveMemory
from formers.attention.cross import CrossAttention
from formers.attention.global_local_layer import GlobalLocalAttention
from formers.attention.kernel import (
    ArcCosine,
    FeatureMap,
    Hyperbolic,
    KernelAttention,
    KernelCrossAttention,
    Positive,
    RandomFourier,
    ReLUKernel,
    Trigonometric,
)
from formers.attention.layer import Attention
from formers.attention.longformer import LongformerAttention
from formers.attention.low_rank.compress import ConvolvedSlots, LinearSlots, PooledSlots
from formers.attention.low_rank.layerwise import Layerwise
from formers.attention.low_rank.linformer import Linformer, LinformerCross
from formers.attention.lsh import LSH
from formers.attention.memorizing import ApproximateSearch, ExactSearch, MemorizingAttention
from formers.attention.mult_conv import MultConv
from formers.attention.pattern import Blocks, Both, Causal, Either, Everything, Pattern, Same, Window
from formers.attention.patterns.by_head import ByHead
from formers.attention.patterns.dilated import Dilated
from formers.attention.patterns.global_local import GlobalLocal
from formers.attention.patterns.image_blocks import Local1D, Local2D
from formers.attention.patterns.permuted import Permuted, Shifted
from formers.attention.patterns.published_blocks import PublishedBlocks
from formers.attention.patterns.random_blocks import RandomBlocks
from formers.attention.patterns.seen_by_all import Global, SeenByAll, SeesAll
from formers.attention.patterns.segments import Segments
from formers.attention.patterns.strided import Strided, Summary
from formers.attention.project import Dense, Projection
from formers.attention.routing import Routing
from formers.attention.select import Selector
from formers.attention.shared_qk import SharedQK
from formers.attention.sinkhorn import SinkhornAttention
from formers.attention.span_attention import SpanAttention
from formers.attention.spans import HeadSpans, QuerySpans
from formers.attention.sparse_cross import SparseQueries
from formers.attention.sparse_project import Convolutional, LowRank, Modular, Multiplicative, MultiplicativeModular
from formers.attention.top_blocks.rule import TopBlocks

__all__ = [
    "LSH",
    "ApproximateSearch",
    "ArcCosine",
    "Attention",
    "AveragedQK",
    "Blocks",
    "Both",
    "ByHead",
    "Causal",
    "CompressiveMemory",
    "ConvCompression",
    "Convolutional",
    "ConvolvedSlots",
    "CrossAttention",
    "Dense",
    "Dilated",
    "DilatedCompression",
    "Either",
    "Everything",
    "ExactSearch",
    "FeatureMap",
    "Global",
    "GlobalLocal",
    "GlobalLocalAttention",
    "HeadSpans",
    "Hyperbolic",
    "KernelAttention",
    "KernelCrossAttention",
    "Layerwise",
    "LinearSlots",
    "Linformer",
    "LinformerCross",
    "Local1D",
    "Local2D",
    "LongformerAttention",
    "LowRank",
    "MaxCompression",
    "MeanCompression",
    "MemorizingAttention",
    "Modular",
    "MostUsedCompression",
    "MultConv",
    "Multiplicative",
    "MultiplicativeModular",
    "Pattern",
    "Permuted",
    "PooledSlots",
    "Positive",
    "Projection",
    "PublishedBlocks",
    "QuerySpans",
    "RandomBlocks",
    "RandomFourier",
    "ReLUKernel",
    "Routing",
    "Same",
    "SeenByAll",
    "SeesAll",
    "Segments",
    "Selector",
    "SharedQK",
    "Shifted",
    "SinkhornAttention",
    "SpanAttention",
    "SparseQueries",
    "Strided",
    "Summary",
    "TopBlocks",
    "Trigonometric",
    "Window",
]
