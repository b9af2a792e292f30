"""A program as a file: packed weights as safetensors, the operations in its metadata. It is mapped, not read."""

import json
import mmap
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from formers.data.atomic import replacing
from formers.errors import CheckpointError
from formers.native.engine.program import Cache, Op, Program, Source
from formers.native.engine.weights import TYPES, Packed, row_bytes

VERSION = 4  # of the metadata; of files that this code can open
LINE = 64  # matrices begin at multiples of so many bytes
KEPT = ("name", "spec", "vocab", "length", "logits", "widths", "caches", "ops")  # fields of a program, as they are
LONGEST = 1 << 30  # header that is believed


def save_program(program: Program, path: str | Path) -> None:
    """Write a program. Matrices that are not packed yet are packed one by one, so they need not fit into memory together."""
    header = _header(program)
    with replacing(Path(path)) as (file,):
        file.write(struct.pack("<Q", len(header)) + header)
        for matrix in program.matrices:
            file.write((matrix.packed() if isinstance(matrix, Source) else matrix).data.data)
        for vector in program.vectors:
            file.write(vector.data)


def open_program(path: str | Path, *, spec: str | None = None, dtype: str | None = None) -> Program:
    """The program in a file, its weights mapped: what is not used is not read, and nothing is copied.

    spec, dtype: refuse a file of another model, or of weights of another type. Raises CheckpointError for a file that
    cannot be read, is no program, or is truncated.
    """
    try:
        with Path(path).open("rb") as file:
            return _checked(_read(file), spec, dtype)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except _BadFileError as error:
        raise CheckpointError(f"{path} {error}") from error


class _BadFileError(Exception):
    """What is wrong with a file, as the rest of a sentence."""


def _header(program: Program) -> bytes:
    """The JSON of safetensors, padded so that what follows begins at a multiple of LINE."""
    end, tensors = 0, {}
    for number, matrix in enumerate(program.matrices):
        shape = [matrix.rows, matrix.stride]
        tensors[f"matrix.{number}"] = {
            "dtype": "U8",
            "shape": shape,
            "data_offsets": [end, end := end + shape[0] * shape[1]],
        }
    for number, vector in enumerate(program.vectors):
        entry = {"dtype": "F32", "shape": [len(vector)], "data_offsets": [end, end := end + vector.nbytes]}
        tensors[f"vector.{number}"] = entry
    kept = {name: getattr(program, name) for name in KEPT} | {"version": VERSION}
    kept["matrices"] = [[matrix.columns, matrix.type, matrix.group] for matrix in program.matrices]
    text = json.dumps({"__metadata__": {"formers.program": json.dumps(kept)}, **tensors}).encode()
    return text + b" " * (-(len(text) + 8) % LINE)


def _read(file: BinaryIO) -> Program:
    size = file.seek(0, 2)
    file.seek(0)
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(LONGEST, size - 8):
        raise _BadFileError("is no safetensors file, or its beginning is lost")
    try:
        header = json.loads(file.read(length))
        kept = json.loads(header["__metadata__"]["formers.program"])
        version = kept["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _BadFileError("is no program that formers has written: lower the model again") from error
    if version != VERSION:
        raise _BadFileError(
            f"was written by another version of formers (format {version}, not {VERSION}): lower the model again"
        )
    whole = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)[8 + length :]
    try:
        return _program(kept, header, whole)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise _BadFileError(f"is damaged: {error}") from error


def _program(kept: dict[str, Any], header: dict[str, Any], whole: np.ndarray) -> Program:
    matrices = tuple(
        _matrix(_bytes(header, f"matrix.{number}", whole), header[f"matrix.{number}"]["shape"], *given)
        for number, given in enumerate(kept["matrices"])
    )
    count = sum(name.startswith("vector.") for name in header)
    vectors = tuple(_bytes(header, f"vector.{number}", whole).view(np.float32) for number in range(count))
    return Program(
        name=str(kept["name"]),
        spec=str(kept["spec"]),
        vocab=int(kept["vocab"]),
        length=None if kept["length"] is None else int(kept["length"]),
        logits=int(kept["logits"]),
        widths=tuple(map(int, kept["widths"])),
        caches=tuple(
            Cache(str(keep), int(heads), int(capacity), int(width), str(type))
            for keep, heads, capacity, width, type in kept["caches"]
        ),
        ops=tuple(_op(*op) for op in kept["ops"]),
        matrices=matrices,
        vectors=vectors,
    )


def _op(name: str, *lists_and_label: Any) -> Op:
    *lists, label = lists_and_label
    kinds = (float if field == "floats" else int for field in Op._fields[1:-1])
    made: list[Any] = [tuple(map(kind, numbers)) for kind, numbers in zip(kinds, lists, strict=True)]
    made.append(str(label))
    return Op(str(name), *made)


def _matrix(data: np.ndarray, shape: list[int], columns: int, type: str, group: int) -> Packed:
    rows, stride = map(int, shape)
    if type not in TYPES or rows < 1 or stride < row_bytes(type, columns, group) or rows * stride != len(data):
        raise ValueError("the shape of a matrix does not fit its type")
    return Packed(data.reshape(rows, stride), columns, type, group)


def _bytes(header: dict[str, Any], name: str, whole: np.ndarray) -> np.ndarray:
    first, last = map(int, header[name]["data_offsets"])
    if not 0 <= first <= last:
        raise ValueError(f"{name} has no place in it")
    if last > len(whole):
        raise ValueError(f"it is truncated: {name} ends at byte {last} of {len(whole)}; copy it again")
    return whole[first:last]


def _checked(program: Program, spec: str | None, dtype: str | None) -> Program:
    if spec is not None and program.spec != spec:
        raise _BadFileError(f"holds another model than was asked for ({program.name}): lower this model again")
    found = {matrix.type for matrix in program.matrices if isinstance(matrix, Packed)}
    if dtype is not None and dtype not in found:
        raise _BadFileError(
            f"holds weights in {', '.join(sorted(found))}, not in {dtype}: lower the model again with that type"
        )
    return program
