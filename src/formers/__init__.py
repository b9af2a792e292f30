"""The whole Transformer family in one library: one set of parts composes every member."""

from formers.after_encoder import (
    AfterEncoder,
)
from formers.attention import (
    LSH,
    Attention,
    AveragedQK,
    Blocks,
    Causal,
    Convolutional,
    CrossAttention,
    Dense,
    Everything,
    LowRank,
    Modular,
    MultConv,
    Multiplicative,
    MultiplicativeModular,
    Routing,
    Same,
    SharedQK,
    SinkhornAttention,
    SparseQueries,
    TopBlocks,
    Window,
)
from formers.block import Block, stack
from formers.embedding import Embedding
from formers.encoder_decoder import EncoderDecoder
from formers.errors import CheckpointError, ConfigError, DataError, FormersError
from formers.family import MEMBERS, make
from formers.feedforward import GLU, MLP
from formers.head import MaskedLM, Pooler, Tied, Untied
from formers.init import Normal, Xavier
from formers.linear import (
    Linear,
)
from formers.model import Decoder, Encoder
from formers.norm import LayerNorm, RMSNorm
from formers.parallel import Parallel
from formers.position import (
    ALiBi,
    Axial,
    DistanceAware,
    FixedBase,
    Infinite,
    Learned,
    LearnedLowRank,
    LearnedSinusoidal,
    NoPosition,
    Rotary,
    SelfLast,
    Shaw,
    Sinusoidal,
    T5Buckets,
    TimeBin,
    TransformerXL,
)
from formers.recurrence import (
    SRUBranch,
)
from formers.residual import PostNorm, PreNorm
from formers.reversible import Reversible
from formers.sparse import (
    BlockFF,
    LocalHead,
    LowRankHead,
    Mixed,
    MultiplicativeHead,
    SparseFF,
    SwitchFF,
)

__version__ = "0.1.0"

__all__ = [
    "GLU",
    "LSH",
    "MEMBERS",
    "MLP",
    "ALiBi",
    "AfterEncoder",
    "Attention",
    "AveragedQK",
    "Axial",
    "Block",
    "BlockFF",
    "Blocks",
    "Causal",
    "CheckpointError",
    "ConfigError",
    "Convolutional",
    "CrossAttention",
    "DataError",
    "Decoder",
    "Dense",
    "DistanceAware",
    "Embedding",
    "Encoder",
    "EncoderDecoder",
    "Everything",
    "FixedBase",
    "FormersError",
    "Infinite",
    "LayerNorm",
    "Learned",
    "LearnedLowRank",
    "LearnedSinusoidal",
    "Linear",
    "LocalHead",
    "LowRank",
    "LowRankHead",
    "MaskedLM",
    "Mixed",
    "Modular",
    "MultConv",
    "Multiplicative",
    "MultiplicativeHead",
    "MultiplicativeModular",
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
    "SRUBranch",
    "Same",
    "SelfLast",
    "SharedQK",
    "Shaw",
    "SinkhornAttention",
    "Sinusoidal",
    "SparseFF",
    "SparseQueries",
    "SwitchFF",
    "T5Buckets",
    "Tied",
    "TimeBin",
    "TopBlocks",
    "TransformerXL",
    "Untied",
    "Window",
    "Xavier",
    "make",
    "stack",
]
