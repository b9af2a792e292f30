"""Batches: each is a pure function of (seed, step), so a resumed run sees what an uninterrupted one would have seen."""

from formers.data.batches.masking import mask_tokens
from formers.data.batches.packed import Packed, document_marks
from formers.data.batches.pairs import PairBatch, PairBatches
from formers.data.batches.windows import EvaluationBatch, Ordered, RandomWindows

__all__ = [
    "EvaluationBatch",
    "Ordered",
    "Packed",
    "PairBatch",
    "PairBatches",
    "RandomWindows",
    "document_marks",
    "mask_tokens",
]
