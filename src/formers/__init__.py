"""The whole Transformer family in one library: one set of parts composes every member."""

from formers.attention import (
    LSH,
    Attention,
    Blocks,
    Causal,
    CrossAttention,
    Dense,
    Everything,
    Routing,
    Same,
    SharedQK,
    SinkhornAttention,
    TopBlocks,
    Window,
)
from formers.block import Block, stack
from formers.embedding import Embedding
from formers.errors import CheckpointError, ConfigError, DataError, FormersError
from formers.family import MEMBERS, make
from formers.feedforward import GLU, MLP
from formers.head import MaskedLM, Pooler, Tied, Untied
from formers.init import Normal, Xavier
from formers.model import Decoder, Encoder, EncoderDecoder
from formers.norm import LayerNorm, RMSNorm
from formers.parallel import Parallel
from formers.position import (
    ALiBi,
    Axial,
    DistanceAware,
    Learned,
    NoPosition,
    Rotary,
    SelfLast,
    Shaw,
    Sinusoidal,
    T5Buckets,
    TransformerXL,
)
from formers.residual import PostNorm, PreNorm
from formers.reversible import Reversible

__version__ = "0.1.0"

__all__ = [
    "GLU",
    "LSH",
    "MEMBERS",
    "MLP",
    "ALiBi",
    "Attention",
    "Axial",
    "Block",
    "Blocks",
    "Causal",
    "CheckpointError",
    "ConfigError",
    "CrossAttention",
    "DataError",
    "Decoder",
    "Dense",
    "DistanceAware",
    "Embedding",
    "Encoder",
    "EncoderDecoder",
    "Everything",
    "FormersError",
    "LayerNorm",
    "Learned",
    "MaskedLM",
    "NoPosition",
    "Normal",
    "Parallel",
    "Pooler",
    "PostNorm",
    "PreNorm",
    "RMSNorm",
    "Reversible",
    "Rotary",
    "Routing",
    "Same",
    "SelfLast",
    "SharedQK",
    "Shaw",
    "SinkhornAttention",
    "Sinusoidal",
    "T5Buckets",
    "Tied",
    "TopBlocks",
    "TransformerXL",
    "Untied",
    "Window",
    "Xavier",
    "make",
    "stack",
]
