"""What rules of lowering build with: registers, caches, packed weights, and the operations in order."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from formers.errors import NoRuleError
from formers.native.engine.program import Cache, Op, Program, Source

# In the order of `Activation` in source/activation.h.
ACTIVATIONS = ("identity", "relu", "gelu", "gelu_tanh", "silu", "gelu_sigmoid", "sigmoid")
NOTHING = 0  # the number of the vector that a part without a bias has


class Builder:
    """A program that is being put together. dtype: of the weights, 'fp32', 'bf16', 'int8' or 'int4'. length: positions that
    there are at most; None: any number."""

    def __init__(self, dtype: str, length: int | None = None) -> None:
        self.dtype, self.length = dtype, length
        self._widths: list[int] = []
        self._free: dict[int, list[int]] = {}
        self._made: dict[Hashable, int] = {}
        self._within: list[str] = []
        self._caches: list[Cache] = []
        self._ops: list[Op] = []
        self._matrices: list[Source] = []
        self._known: dict[tuple[Hashable, ...], int] = {}
        self._held: list[tuple[Tensor, ...]] = []  # tensors of known matrices, so that no other is given their identity
        self._vectors: list[np.ndarray] = [np.empty(0, np.float32)]
        self._kept: dict[Hashable, list[int]] = {}
        # From the stream to logits, as at the end of the model, and the register that it may use up on its way.
        self.read: Callable[[int, int], int] | None = None
        # The number of the block that tokens may pass by: what it keeps of them is made without their queries. None: of none.
        self.passed_by: int | None = None

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        """Operations of this kind of part, which their labels tell."""
        self._within.append(part)
        try:
            yield
        finally:
            self._within.pop()

    def register(self, width: int) -> int:
        """A register of `width` floats for each row; what stands in it at first is left from other operations."""
        free = self._free.get(width)
        if free:
            return free.pop()
        self._widths.append(width)
        return len(self._widths) - 1

    def release(self, *registers: int) -> None:
        """These are not read any more, and may be had again."""
        for register in registers:
            self._free.setdefault(self._widths[register], []).append(register)

    def width(self, register: int) -> int:
        """Floats for each row."""
        return self._widths[register]

    def cache(self, keep: str, *, heads: int, capacity: int, width: int, type: str = "fp32") -> int:
        """Something that each stream keeps; see `Cache`."""
        self._caches.append(Cache(keep, heads, capacity, width, type))
        return len(self._caches) - 1

    def keys_and_values(self, keep: str, *, heads: int, capacity: int, width: int) -> list[int]:
        """Two caches, in halves where weights are in halves or less."""
        type = "fp32" if self.dtype == "fp32" else "bf16"
        return [self.cache(keep, heads=heads, capacity=capacity, width=width, type=type) for _ in range(2)]

    def kept_by(self, layer: object, make: Callable[[], list[int]]) -> list[int]:
        """The caches of a layer. Those of a block that tokens may pass by are written in two places, and made once."""
        if self.passed_by is None:
            return make()
        key = (self.passed_by, id(layer))
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    @contextmanager
    def for_those_who_left(self) -> Iterator[None]:
        """The operations that are added within are run with the tokens that have left the depth, and no others."""
        first = len(self._ops)
        yield
        if len(self._ops) > first:
            self.op("others", ints=[len(self._ops) - first])
            self._ops.insert(first, self._ops.pop())

    def once(self, key: Hashable, make: Callable[[], int]) -> int:
        """A register that many operations read, such as the angles of positions: made when it is first asked for."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def forget(self) -> None:
        """Positions change here: what was made once has to be made again."""
        self._made.clear()

    def matrix(self, *tensors: Tensor, dtype: str | None = None) -> int:
        """The rows of matrices (rows, columns), one below the other. The same tensors are packed once."""
        key = (dtype or self.dtype, *map(id, tensors))
        if key not in self._known:
            self._matrices.append(Source(tuple(tensor.detach() for tensor in tensors), dtype or self.dtype))
            self._known[key] = len(self._matrices) - 1
            self._held.append(tensors)
        return self._known[key]

    def vector(self, *tensors: Tensor | None) -> int:
        """Numbers one after another, kept in fp32. None, for a part that has none, is the empty vector."""
        given = [tensor.detach() for tensor in tensors if tensor is not None]
        if not given:
            return NOTHING
        whole = torch.cat([tensor.flatten() for tensor in given])
        if whole.is_meta:
            whole = torch.linspace(0.5, 1.5, len(whole))  # of a model without weights: numbers to compute with
        self._vectors.append(np.ascontiguousarray(whole.to("cpu", torch.float32).numpy()).copy())
        return len(self._vectors) - 1

    def op(
        self,
        name: str,
        *,
        reads: Sequence[int] = (),
        writes: Sequence[int] = (),
        ints: Sequence[int] = (),
        floats: Sequence[float] = (),
        matrices: Sequence[int] = (),
        vectors: Sequence[int] = (),
        caches: Sequence[int] = (),
    ) -> None:
        """One more operation, behind the others."""
        registers, label = (tuple(reads), tuple(writes)), "/".join(self._within)
        self._ops.append(
            Op(
                name,
                *registers,
                tuple(map(int, ints)),
                tuple(floats),
                tuple(matrices),
                tuple(vectors),
                tuple(caches),
                label,
            )
        )

    def program(self, name: str, spec: str, vocab: int, length: int | None, logits: int) -> Program:
        """All of it, its weights still to be packed."""
        lists = tuple(self._widths), tuple(self._caches), tuple(self._ops), tuple(self._matrices), tuple(self._vectors)
        return Program(name, spec, vocab, length, logits, *lists)


def activation_number(name: str) -> int:
    """How the engine calls an activation."""
    if name not in ACTIVATIONS:
        raise NoRuleError(f"the native engine has no rule for {name}, an activation")
    return ACTIVATIONS.index(name)


def linear(
    build: Builder, x: int, into: int, *layers: Any, activation: str = "identity", add: bool = False, first: int = 0
) -> None:
    """One product of linear layers that read the same register, their outputs side by side in `into` from `first` on."""
    biases = [layer.bias for layer in layers]
    if any(bias is not None for bias in biases):
        biases = [layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias for layer in layers]
    build.op(
        "linear",
        reads=[x],
        writes=[into],
        ints=[add, activation_number(activation), 0, first],
        matrices=[build.matrix(*(layer.weight for layer in layers))],
        vectors=[build.vector(*biases)],
    )
