"""From summed nats to the figures that people compare."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from formers.attention.span_usage import SpanTally
from formers.data.tokenizer import Tokenizer
from formers.sparse import UnitCounts
from formers.train.task import Loss


def score(nats: float, tokens: int, text_bytes: int | None = None) -> dict[str, float]:
    """nats (per token), perplexity, tokens; and bits_per_byte and bytes where the bytes of the text are known."""
    mean = nats / tokens
    found: dict[str, float] = {"nats": mean, "perplexity": math.exp(min(mean, 700.0)), "tokens": tokens}
    if text_bytes:
        found |= {"bits_per_byte": nats / (math.log(2) * text_bytes), "bytes": text_bytes}
    return found


class Tally:
    """What all passes of an evaluation lost, which units their sparse layers chose, and how far their heads looked."""

    def __init__(self) -> None:
        self._nats: list[Tensor] = []
        self._units = UnitCounts()
        self._spans = SpanTally()

    def add(self, loss: Loss) -> None:
        """Count one more pass."""
        self._nats.append(loss.nats)
        self._units.add(loss.records)
        self._spans.add(loss.records)

    def score(self, tokens: int, text_bytes: int | None = None, *, opening: float = 0.0) -> dict[str, float]:
        """The figures of `score`, of `UnitCounts` and of `SpanTally`. opening: nats that no pass has lost."""
        found = score(summed(self._nats) + opening, tokens, text_bytes)
        return found | self._units.figures() | self._spans.figures()


def summed(parts: list[Tensor]) -> float:
    """The sum of many scalars, in double precision, fetched from the device at once."""
    return math.fsum(torch.stack(parts).tolist())


def byte_count(tokens: npt.NDArray[np.integer[Any]], tokenizer: Tokenizer) -> int | None:
    """How many bytes of UTF-8 the tokens stand for, or None where one of them does not tell by itself."""
    numbers, counts = np.unique(tokens, return_counts=True)
    pieces = [tokenizer.token_bytes(int(number)) for number in numbers]
    if any(piece is None for piece in pieces):
        return None
    return sum(len(piece or b"") * int(count) for piece, count in zip(pieces, counts, strict=True))
