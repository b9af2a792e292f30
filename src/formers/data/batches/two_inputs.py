"""A long input and a global one that sums up its sentences, in one row: ETC, arXiv:2004.08483."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from formers.data.batches.packed import document_marks
from formers.errors import DataError
from formers.sides import GLOBAL, SEGMENT


class TwoInputs(NamedTuple):
    """tokens (B, G + T): G global ones, then T long ones; mask: of real tokens, since either input may be ragged.

    marks: "global" and "segment", both (B, G + T), as a model takes them. `ahead`: G.
    """

    tokens: Tensor
    mask: Tensor
    marks: dict[str, Tensor]
    ahead: int


def side_by_side(long: Tensor, segment: Tensor, summary: int, real: Tensor | None = None) -> TwoInputs:
    """Long tokens (B, T) behind one global token, `summary`, for each of their segments.

    segment (B, T): 0, 1, ... in each row, below 0 in none. real (B, T): False at padding, None: all are. Raises
    DataError for shapes that differ.
    """
    real = torch.ones_like(long, dtype=torch.bool) if real is None else real
    if not long.shape == segment.shape == real.shape:
        shapes = ", ".join(str(tuple(t.shape)) for t in (long, segment, real))
        raise DataError(f"tokens, segments and mask must be of one shape, got {shapes}")
    count = torch.where(real, segment + 1, 0).amax(1, keepdim=True)
    index = torch.arange(int(count.max()), device=long.device).expand(len(long), -1)
    joined = {
        GLOBAL: (torch.ones_like(index), torch.zeros_like(long)),
        SEGMENT: (index, segment.masked_fill(~real, -1)),
    }
    return TwoInputs(
        torch.cat([torch.full_like(index, summary), long], 1),
        torch.cat([index < count, real], 1),
        {name: torch.cat(parts, 1) for name, parts in joined.items()},
        index.shape[1],
    )


def of_sentences(rows: Sequence[Sequence[Sequence[int]]], summary: int) -> TwoInputs:
    """Each row a text in sentences, each sentence the ids of its tokens. Raises DataError for an empty one."""
    for number, row in enumerate(rows):
        if not row or not all(row):
            raise DataError(f"row {number} has no sentence, or an empty one; leave out what holds no tokens")
    ids = [torch.tensor([token for sentence in row for token in sentence]) for row in rows]
    lengths = [torch.tensor([len(sentence) for sentence in row]) for row in rows]
    segment = [torch.arange(len(of_row)).repeat_interleave(of_row) for of_row in lengths]
    long, segments = pad_sequence(ids, batch_first=True), pad_sequence(segment, batch_first=True, padding_value=-1)
    return side_by_side(long, segments, summary, segments >= 0)


def sentence_segments(tokens: Tensor, end: int, longest: int) -> Tensor:
    """Which sentence of its row each token of (B, T) is in: 0, 1, ..., each closed by the id `end`.

    What is longer than `longest` tokens is cut into several, so that even text without ends has sentences.
    """
    marks = document_marks(tokens, end)
    opens = marks["position"] % longest == 0
    return opens.cumsum(1) - 1
