"""Weights as the decode engine reads them: packed matrices in fp32, bf16, int8 or int4.

The layout is that of source/matrix.h: a row is one run of bytes, its values and then its scales, padded to a multiple
of 64 bytes. int8 and int4 are symmetric, with one scale in bf16 for each group of columns.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from formers.errors import ConfigError
from formers.native.engine.quantise import GROUPS, dequantise, quantise

TYPES = ("fp32", "bf16", "int8", "int4")  # in the order of Type in source/matrix.h
BITS = {"fp32": 32, "bf16": 16, "int8": 8, "int4": 4}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
AT_ONCE = 1 << 22  # weights that are packed at a time: it bounds the memory for intermediate results
HUGE = 1 << 21


@dataclass(frozen=True)
class Packed:
    """A matrix in `data`, uint8 (rows, stride). group: columns that share a scale; 0 for fp32 and bf16."""

    data: np.ndarray
    columns: int
    type: str
    group: int

    @property
    def rows(self) -> int:
        return self.data.shape[0]

    @property
    def stride(self) -> int:
        """Bytes from one row to the next."""
        return self.data.shape[1]


def pack(weight: Tensor | np.ndarray, type: str, group: int | None = None, seed: int = 0) -> Packed:
    """A matrix (rows, columns), rounded to one of TYPES.

    bf16 is rounded to nearest, ties to even. group: 64 for int8 and 32 for int4 if None. A tensor on the `meta` device
    has no numbers: it is filled with random ones of variance 1 / columns, those of `seed`, the same rows again and
    again. Raises `ConfigError` where the type or the group is not known, or a number to be quantised is not finite.
    """
    tensor = torch.from_numpy(weight) if isinstance(weight, np.ndarray) else weight.detach()
    group = _group(type, group)
    if tensor.dim() != 2 or 0 in tensor.shape:
        raise ConfigError(f"only matrices can be packed, this has the shape {tuple(tensor.shape)}")
    rows, columns = tensor.shape
    data = room(rows, row_bytes(type, columns, group))
    packed = Packed(data, columns, type, group)
    if tensor.is_meta:
        _fill(packed, seed)
        return packed
    for some in _runs(rows, columns):
        _store(packed, some, tensor[some].float())
    return packed


def unpack(packed: Packed) -> Tensor:
    """The numbers that a packed matrix stands for, fp32 (rows, columns)."""
    values, scales = _parts(packed, slice(None))
    if packed.type in DTYPES:
        return values.view(DTYPES[packed.type])[:, : packed.columns].float()
    return dequantise(values, scales, packed.type, packed.group)[:, : packed.columns].contiguous()


def row_bytes(type: str, columns: int, group: int) -> int:
    """Bytes from one row to the next."""
    scales = -(-columns // group) * 2 if group else 0
    return up_to(_value_bytes(type, columns) + scales, 64)


def room(rows: int, stride: int) -> np.ndarray:
    """Zeros, uint8 (rows, stride): whole pages, large ones where the system has them, for rows are read in any order."""
    size = up_to(rows * stride, HUGE if rows * stride >= HUGE else mmap.PAGESIZE)
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.frombuffer(mmap.mmap(-1, size), np.uint8, rows * stride).reshape(rows, stride)
    # Private: memory that could be shared gets no large pages unless the administrator allows it.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8, rows * stride).reshape(rows, stride)


def _group(type: str, group: int | None) -> int:
    if type not in TYPES:
        raise ConfigError(f"weights can be {', '.join(TYPES)}, not {type!r}")
    if type not in GROUPS:
        if group:
            raise ConfigError(f"weights in {type} have no scales: leave out group={group}")
        return 0
    group = GROUPS[type] if group is None else group
    if group != 32 and (group < 64 or group % 64):
        raise ConfigError(f"a group must be 32 columns or a multiple of 64, not {group}")
    return group


def _fill(packed: Packed, seed: int) -> None:
    some = next(_runs(packed.rows, packed.columns))
    count = len(range(packed.rows)[some])
    chance = torch.Generator().manual_seed(seed)
    _store(packed, some, torch.randn(count, packed.columns, generator=chance) / packed.columns**0.5)
    for first in range(count, packed.rows, count):
        packed.data[first : first + count] = packed.data[: min(count, packed.rows - first)]


def _runs(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, AT_ONCE // columns)
    return (slice(first, min(rows, first + step)) for first in range(0, rows, step))


def _store(packed: Packed, some: slice, numbers: Tensor) -> None:
    values, scales = _parts(packed, some)
    if packed.type in DTYPES:
        values.view(DTYPES[packed.type])[:, : packed.columns] = numbers
        return
    padded = torch.nn.functional.pad(numbers, (0, up_to(packed.columns, 64) - packed.columns))
    codes, by = quantise(padded, packed.type, packed.group)
    values.copy_(codes)
    scales.copy_(by[:, : scales.shape[1]])


def _parts(packed: Packed, some: slice) -> tuple[Tensor, Tensor]:
    """Views of some rows: their values, uint8, and their scales, bf16."""
    data = torch.from_numpy(np.require(packed.data, requirements="W"))[some]  # mapped files are copied: for reading
    end = _value_bytes(packed.type, packed.columns)
    scales = -(-packed.columns // packed.group) if packed.group else 0
    return data[:, :end], data[:, end : end + 2 * scales].view(torch.bfloat16)


def _value_bytes(type: str, columns: int) -> int:
    if type in DTYPES:
        return up_to(columns * BITS[type] // 8, 64)
    return up_to(columns, 64) * BITS[type] // 8


def up_to(count: int, to: int) -> int:
    return -(-count // to) * to
