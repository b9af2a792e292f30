"""What a memory of attention costs and keeps beside the keys and values of tokens."""

from functools import singledispatch
from typing import NamedTuple

from formers.attention import CompressiveMemory, MostUsedCompression
from formers.layer_inputs import KeepInputs
from formers.memory import Memory
from formers.spec.core import Site


class Beside(NamedTuple):
    """At a length of N tokens.

    numbers: kept of each token that is kept, and state: of all together. slots: keys that a query meets and that are no
    tokens, the mean of all queries and of the last one. operations, last: to make those, per token of a pass, and in the
    decode step of the last token.
    """

    numbers: int = 0
    state: int = 0
    slots: tuple[float, int] = (0.0, 0)
    operations: float = 0.0
    last: float = 0.0


@singledispatch
def beside(memory: Memory, inner: Site, length: int) -> Beside:
    """Where nothing else is registered: nothing."""
    return Beside()


@beside.register
def _keep_inputs(memory: KeepInputs, inner: Site, length: int) -> Beside:
    return Beside(inner.dim)


@beside.register
def _compressive(memory: CompressiveMemory, inner: Site, length: int) -> Beside:
    """Slots are made when a segment ends; the first step of the next makes their keys, and anew those of all tokens that
    are kept, which last until it ends."""
    size = memory.segment
    keys = 2 * inner.kv_heads * inner.head_dim
    held = [_held(memory, begins) for begins in range(0, length, size)]  # at each segment
    tokens = [min(size, length - begins) for begins in range(0, length, size)]
    ended = max(0, (length - memory.memory) // size)  # segments that have left the memory
    to_end = _operations(memory, inner)
    last = to_end if length % size == 0 and length > memory.memory else 0.0
    if length > 1 and (length - 1) % size == 0:
        last += 2.0 * inner.dim * keys * (held[-1] + min(memory.memory, length - 1))
    return Beside(
        inner.dim,
        memory.compressed * inner.dim + keys * held[-1],
        (sum(h * t for h, t in zip(held, tokens, strict=True)) / length, held[-1]),
        (2.0 * inner.dim * keys * sum(held) + to_end * ended) / length,
        last,
    )


def _held(memory: CompressiveMemory, begins: int) -> int:
    """Slots in use by a segment that begins there."""
    return min(memory.compressed, max(0, begins - memory.memory) // memory.compression.rate)


def _operations(memory: CompressiveMemory, inner: Site) -> float:
    """To compress one segment. The most used are found by a pass of the latest segment over all that it sees."""
    if isinstance(memory.compression, MostUsedCompression):
        width, seen = inner.heads * inner.head_dim, memory.compressed + memory.memory + memory.segment
        made = inner.dim * (width * memory.segment + 2 * inner.kv_heads * inner.head_dim * seen)
        return 2.0 * (made + memory.segment * seen * width)
    return 2.0 * inner.dim**2 * memory.segment if memory.compression.learns else 0.0
