"""What a new model takes over from the one that it is made of, before it has learned anything."""

import torch
from torch import nn

from formers.convert.pairs import Pair
from formers.feedforward import MLPLayer
from formers.sparse.feedforward import SparseFFLayer


def inherit(old: nn.Module, new: nn.Module, pairs: list[Pair]) -> None:
    """Copy into the new model every tensor outside the changed sublayers, and of those what means the same in both."""
    changed = tuple(f"{pair.name}." for pair in pairs)
    kept = {name: tensor for name, tensor in old.state_dict().items() if not name.startswith(changed)}
    new.load_state_dict(kept, strict=False)
    for pair in pairs:
        if isinstance(pair.old, MLPLayer) and isinstance(pair.new, SparseFFLayer):
            _units(pair.old, pair.new)


@torch.no_grad()
def _units(old: MLPLayer, new: SparseFFLayer) -> None:
    """The units of a dense feed-forward, in their order. Their own biases have no place in a sparse one."""
    count = old.spec.hidden
    new.up.weight[:count] = old.up.weight
    new.down.weight[:, :count] = old.down.weight
    if old.down.bias is not None and new.down.bias is not None:
        new.down.bias.copy_(old.down.bias)
