"""How long spans are, and what work they save: told by each pass, added up over many."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import NamedTuple

import torch
from torch import Tensor

from formers.call import Call
from formers.places import Places

RECORD = "spans "


class SpanUsage(NamedTuple):
    """The spans of one layer, in tokens, without the ramp: the mean of each head over the queries of some passes.

    saved: the share of attention's scores that nobody worked out, of those that the longest span takes.
    """

    spans: list[float]
    saved: float

    @property
    def mean(self) -> float:
        """Of the heads."""
        return mean(self.spans)


def is_told(training: bool, call: Call) -> bool:
    """Spans are told in training, and in passes that nothing continues, such as those of an evaluation."""
    return training or not call.remember


def told_spans(spans: Tensor, works: Sequence[tuple[Sequence[int], int]], full: int, at: Places, batch: int) -> Tensor:
    """What a pass tells, (H, 4): for each head its spans summed over real queries, how many these are, the scores that were
    worked out, and those of the longest span. Passes add up.

    spans: (1 or B, H, 1 or T). works: heads, and the scores that each of them takes for a row of the batch.
    """
    heads = spans.shape[1]
    real = spans.new_ones(batch, at.length) if at.real is None else at.real.to(spans.dtype)
    summed = (spans * real[:, None]).sum((0, 2))
    done = spans.new_zeros(heads)
    for some, pairs in works:
        done[list(some)] = float(pairs * batch)
    whole = (real.sum().expand(heads), done, torch.full_like(done, full * batch))
    return torch.stack([summed, *whole], -1)


def span_usage(records: Mapping[str, tuple[Tensor, ...]]) -> dict[str, SpanUsage]:
    """What the layers with spans told, by their places in the model ("0.1": block 0, sublayer 1).

    records: of an `Output`, or of several passes joined by `add_records`. A layer that stands in front of this name, as in
    "source.", keeps its side.
    """
    return {path: _usage(told) for path, told in _told(records).items()}


class SpanTally:
    """What the layers with spans told in many passes, such as those of an evaluation."""

    def __init__(self) -> None:
        self._told: dict[str, Tensor] = {}

    def add(self, records: Mapping[str, tuple[Tensor, ...]]) -> None:
        """Count one more pass; records: of its `Output`. Those of other layers are left alone."""
        for path, told in _told(records).items():
            before = self._told.get(path)
            self._told[path] = told if before is None else before + told

    def figures(self) -> dict[str, float]:
        """mean_span: in tokens, of all heads of all layers; saved_scores: the share of attention's scores that nobody had
        to work out, of those that the longest spans take. Nothing of a model without spans."""
        if not self._told:
            return {}
        layers = torch.cat(list(self._told.values()))
        found = _usage(layers)
        return {"mean_span": found.mean, "saved_scores": found.saved}


def _told(records: Mapping[str, tuple[Tensor, ...]]) -> dict[str, Tensor]:
    found = {}
    for name, parts in records.items():
        side, record, path = name.rpartition(RECORD)
        if record:
            found[side + path] = torch.stack([part.detach() for part in parts]).double().sum(0)
    return found


def _usage(told: Tensor) -> SpanUsage:
    summed, queries, done, full = told.unbind(-1)
    return SpanUsage((summed / queries.clamp(min=1)).tolist(), float(1 - done.sum() / full.sum().clamp(min=1)))
