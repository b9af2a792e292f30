"""Batches: each is a pure function of (seed, step), so a resumed run sees what an uninterrupted one would have seen."""

from formers.data.batches.masking import mask_tokens
from formers.data.batches.packed import Packed, document_marks
from formers.data.batches.pairs import PairBatch, PairBatches
from formers.data.batches.streams import OrderedStreams, Streams
from formers.data.batches.two_inputs import TwoInputs, of_sentences, sentence_segments, side_by_side
from formers.data.batches.windows import EvaluationBatch, Ordered, RandomWindows

__all__ = [
    "EvaluationBatch",
    "Ordered",
    "OrderedStreams",
    "Packed",
    "PairBatch",
    "PairBatches",
    "RandomWindows",
    "Streams",
    "TwoInputs",
    "document_marks",
    "mask_tokens",
    "of_sentences",
    "sentence_segments",
    "side_by_side",
]
