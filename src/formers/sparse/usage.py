"""How often each unit was chosen, so that units that nobody chooses any more are seen."""

from collections.abc import Mapping
from statistics import mean
from typing import NamedTuple

import torch
from torch import Tensor

from formers.call import Call

RECORD = "units "


class Usage(NamedTuple):
    """How the choices of one layer were spread.

    counts (K, N), int64: how often each of N units was chosen in each of K blocks. dead: the share of units that were
    never chosen. effective: how many units of a block do the work: e to the entropy of its choices, from 1 to N, in the
    mean over the blocks.
    """

    counts: Tensor
    dead: float
    effective: float


def count_units(picked: Tensor, units: int, call: Call, rows: slice) -> Tensor:
    """How often real tokens chose each unit, (K, N) int64, of choices (B, T, K) in these rows of the call."""
    blocks = picked.shape[-1]
    first = torch.arange(blocks, device=picked.device) * units
    real = call.at.real
    weights = picked.new_ones((), dtype=torch.int64) if real is None else real[:, rows, None].long()
    counts = torch.zeros(blocks * units, dtype=torch.int64, device=picked.device)
    counts.scatter_add_(0, (picked.long() + first).flatten(), weights.expand(picked.shape).flatten())
    return counts.view(blocks, units)


def is_counted(training: bool, call: Call) -> bool:
    """Units are counted in training, and in passes that nothing continues, such as those of an evaluation."""
    return training or not call.remember


def usage(records: Mapping[str, tuple[Tensor, ...]]) -> dict[str, Usage]:
    """What the sparse layers of a model noted, by their places in it ("0.1": block 0, sublayer 1).

    records: of an `Output`, or of several passes joined by `add_records`. Dead is what no token of these passes chose:
    let there be many times N of them. A layer that stands in front of this name, as in "source.", keeps its side.
    """
    found = {}
    for name, parts in records.items():
        side, record, path = name.rpartition(RECORD)
        if record:
            found[side + path] = _spread(torch.stack([part.detach() for part in parts]).sum(0))
    return found


class UnitCounts:
    """What the sparse layers of a model chose in many passes, such as those of an evaluation."""

    def __init__(self) -> None:
        self._counted: dict[str, Tensor] = {}

    def add(self, records: Mapping[str, tuple[Tensor, ...]]) -> None:
        """Count the choices of one more pass; records: of its `Output`. Those of other layers are left alone."""
        for path, spread in usage(records).items():
            before = self._counted.get(path)
            self._counted[path] = spread.counts if before is None else before + spread.counts

    def figures(self) -> dict[str, float]:
        """dead_units: the share of all units that were never chosen; effective_units: how many units of a block do the
        work, see `Usage`, in the mean over the layers. Nothing of a model that chooses no units."""
        if not self._counted:
            return {}
        layers = [_spread(counts) for counts in self._counted.values()]
        never = torch.cat([layer.counts.flatten() for layer in layers]) == 0
        return {
            "dead_units": float(never.double().mean()),
            "effective_units": mean(layer.effective for layer in layers),
        }


def _spread(counts: Tensor) -> Usage:
    shares = counts.double() / counts.sum(-1, keepdim=True).clamp(min=1)
    entropy = torch.special.entr(shares).sum(-1)
    return Usage(counts, float((counts == 0).double().mean()), float(entropy.exp().mean()))
