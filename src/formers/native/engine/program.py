"""A lowered model as a value: operations by name, over registers, caches and packed weights."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from formers.native.engine.weights import GROUPS, Packed, pack, row_bytes


class Op(NamedTuple):
    """One operation. reads, writes: registers; matrices, vectors, caches: numbers in the program's lists.

    What ints and floats mean is said above the operation's check, in source/check_*.h. label: the kinds of the parts that
    it was lowered from, the outermost first, "BlockLayer/MLPLayer".
    """

    name: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    ints: tuple[int, ...] = ()
    floats: tuple[float, ...] = ()
    matrices: tuple[int, ...] = ()
    vectors: tuple[int, ...] = ()
    caches: tuple[int, ...] = ()
    label: str = ""


class Cache(NamedTuple):
    """What each stream keeps: (heads, capacity, width). keep: "fixed", "growing", "rolling" or "given"; capacity is that
    of a fixed or rolling one, 0 for the others. type: of its numbers, "fp32" or "bf16"; fixed ones are fp32."""

    keep: str
    heads: int
    capacity: int
    width: int
    type: str = "fp32"


class Source(NamedTuple):
    """A matrix that is still to be packed: the rows of these tensors, one below the other."""

    tensors: tuple[Tensor, ...]
    type: str

    @property
    def rows(self) -> int:
        return sum(map(len, self.tensors))

    @property
    def columns(self) -> int:
        return self.tensors[0].shape[1]

    @property
    def group(self) -> int:
        """Columns that will share a scale; 0: there are no scales."""
        return GROUPS.get(self.type, 0)

    @property
    def stride(self) -> int:
        """Bytes from one row to the next, once packed."""
        return row_bytes(self.type, self.columns, self.group)

    def packed(self) -> Packed:
        """Now."""
        whole = self.tensors[0] if len(self.tensors) == 1 else torch.cat(self.tensors)
        return pack(whole, self.type)


@dataclass(frozen=True)
class Program:
    """name: of the model, for messages. spec: of the model, as JSON. length: how many positions there are, None: any
    number. logits: the register that holds them. widths: of the registers."""

    name: str
    spec: str
    vocab: int
    length: int | None
    logits: int
    widths: tuple[int, ...]
    caches: tuple[Cache, ...]
    ops: tuple[Op, ...]
    matrices: tuple[Packed | Source, ...]
    vectors: tuple[np.ndarray, ...]

    def packed(self) -> "Program":
        """This program with all weights packed, in memory."""
        return replace(self, matrices=tuple(m.packed() if isinstance(m, Source) else m for m in self.matrices))
