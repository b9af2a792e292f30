"""What Scaling Transformers and Terraformer share: which of their parts are sparse, and how order enters."""

import math
from dataclasses import dataclass

from formers.attention import Attention, MultConv
from formers.call import Layer
from formers.errors import ConfigError
from formers.feedforward import MLP
from formers.head import Head, Untied
from formers.position import (
    AbsolutePosition,
    Axial,
    FixedBase,
    Infinite,
    LearnedLowRank,
    LearnedSinusoidal,
    Sinusoidal,
    TimeBin,
)
from formers.sparse import MultiplicativeHead, SparseFF
from formers.spec.codec import mean

PARTS = ("feed_forward", "qkv", "cross", "loss")
POSITIONS = (
    "learned",
    "low_rank",
    "fixed_base",
    "sinusoidal",
    "axial",
    "infinite",
    "infinite_affine",
    "time_bin",
    "none",
)


@dataclass(frozen=True)
class Sparsity:
    """parts: those of PARTS that are sparse; the other fields are the members' arguments of the same names.

    Raises ConfigError for parts of another name.
    """

    parts: tuple[str, ...]
    block: int
    rank: int
    modules: int
    share_qk: bool
    loss_modules: int

    def __post_init__(self) -> None:
        for part in self.parts:
            if part not in PARTS:
                raise ConfigError(f"there is no sparse part named {part!r}: {mean(part, PARTS)}")

    def has(self, part: str) -> bool:
        return part in self.parts

    def feed_forward(self, hidden: int | tuple[int, int], chunk: int | None) -> Layer:
        """hidden: of two numbers, the second where queries, keys and values are sparse."""
        units = hidden if isinstance(hidden, int) else hidden[self.has("qkv")]
        if self.has("feed_forward"):
            return SparseFF(units, self.block, self.rank, chunk=chunk)
        return MLP(units, "relu", chunk=chunk)

    def attention(self, heads: int) -> Attention:
        """A decoder's attention to itself."""
        return self.sparse_attention(heads) if self.has("qkv") else self.dense_attention(heads)

    def sparse_attention(self, heads: int) -> Attention:
        return Attention(heads, projection=MultConv(self.modules, share_qk="same" if self.share_qk else "none"))

    def dense_attention(self, heads: int) -> Attention:
        return Attention(heads)

    def head(self) -> Head:
        return MultiplicativeHead(self.loss_modules) if self.has("loss") else Untied(bias=True)


def position_of(kind: str, dim: int, length: int) -> AbsolutePosition | None:
    """The absolute position of that name in POSITIONS; length: of the tables. Raises ConfigError for another name."""
    if kind not in POSITIONS:
        raise ConfigError(f"there are no positions named {kind!r}: {mean(kind, POSITIONS)}")
    side = 2 ** math.ceil(math.log2(max(1, length)) / 2)
    kinds: dict[str, AbsolutePosition] = {
        "learned": LearnedSinusoidal(length),
        "low_rank": LearnedLowRank(length),
        "fixed_base": FixedBase(),
        "sinusoidal": Sinusoidal(),
        "axial": Axial((side, max(1, -(-length // side))), (dim // 4, dim - dim // 4)),
        "infinite": Infinite(),
        "infinite_affine": Infinite(affine=True),
        "time_bin": TimeBin(),
    }
    return kinds.get(kind)
