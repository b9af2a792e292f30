"""The layers in which two models of one build differ, side by side."""

from typing import Any, NamedTuple

from torch import nn

from formers.block import BlockLayer


class Pair(NamedTuple):
    """One sublayer of the old model and what stands in its place in the new one; name: its path in both."""

    name: str
    old: Any
    new: Any


def pairs_of(old: nn.Module, new: nn.Module) -> list[Pair]:
    """Every sublayer of a block whose spec differs. Both models must have the same blocks in the same places."""
    blocks = {name: block for name, block in new.named_modules() if isinstance(block, BlockLayer)}
    found = []
    for path, block in old.named_modules():
        if isinstance(block, BlockLayer):
            both: Any = zip(block.sublayers, blocks[path].sublayers, strict=True)
            for i, (before, after) in enumerate(both):
                if before.spec != after.spec:
                    found.append(Pair(f"{path}.sublayers.{i}", before, after))
    return found
