"""Positions. Order may enter in four places only: the embedding (absolute), the queries and keys (rotary), the
score by distance (ALiBi, T5), and the score by content (Shaw, Transformer-XL, distance-aware)."""

from formers.position.absolute import AbsolutePosition, Axial, AxialSum, Learned, Sinusoidal, sinusoid
from formers.position.coordinates import Coordinates
from formers.position.core import NoPosition, Position, PositionLayer
from formers.position.distance import ALiBi, T5Buckets
from formers.position.distance_aware import DistanceAware
from formers.position.fixed_base import FixedBase
from formers.position.infinite import Infinite
from formers.position.labels import RelativeLabels
from formers.position.long_only import LongOnly
from formers.position.relative_keys import RelativeKeys
from formers.position.rotary import Rotary
from formers.position.self_last import SelfLast
from formers.position.shaw import Shaw
from formers.position.tables import LearnedLowRank, LearnedSinusoidal
from formers.position.time_bin import TimeBin
from formers.position.transformer_xl import TransformerXL

__all__ = [
    "ALiBi",
    "AbsolutePosition",
    "Axial",
    "AxialSum",
    "Coordinates",
    "DistanceAware",
    "FixedBase",
    "Infinite",
    "Learned",
    "LearnedLowRank",
    "LearnedSinusoidal",
    "LongOnly",
    "NoPosition",
    "Position",
    "PositionLayer",
    "RelativeKeys",
    "RelativeLabels",
    "Rotary",
    "SelfLast",
    "Shaw",
    "Sinusoidal",
    "T5Buckets",
    "TimeBin",
    "TransformerXL",
    "sinusoid",
]
