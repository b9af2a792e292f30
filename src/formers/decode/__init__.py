"""Writing with a model: sampling, stop strings, batches and streams, and beam search."""

from formers.decode.beam import beam_search
from formers.decode.engine import Choice, choose_engine
from formers.decode.generate import Stream, generate, stream, stream_batch
from formers.decode.hypotheses import Hypothesis
from formers.decode.sampling import GREEDY, Sampling
from formers.decode.transcript import Generation

__all__ = [
    "GREEDY",
    "Choice",
    "Generation",
    "Hypothesis",
    "Sampling",
    "Stream",
    "beam_search",
    "choose_engine",
    "generate",
    "stream",
    "stream_batch",
]
