"""The library of products by tiles: its C structures, and calls.

Tiles multiply bf16 and add up in fp32. A number of 24 bits is the sum of three of 8, so six products of such parts give what
one product of floats gives, with an error no larger than its rounding. Infinite numbers give none (nan), and parts
below 1e-38 count as 0.
"""

import ctypes
import platform
import sys
from collections.abc import Sequence
from functools import cache
from itertools import repeat

import torch
from torch import Tensor

from formers.errors import FormersError
from formers.native.library import FAILURES, STALE, open_built

STEM = "_gemm"
NO_TILES = "this machine has no tiles (AMX) that multiply bf16"


class Matrix(ctypes.Structure):
    """The same as `Matrix` in source/product.h, field by field."""

    _fields_ = (("data", ctypes.c_void_p), ("row", ctypes.c_int64), ("column", ctypes.c_int64))


class Product(ctypes.Structure):
    """The same as `Product` in source/product.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "columns", "inner")),
        ("left", Matrix),
        ("right", Matrix),
        ("out", ctypes.c_void_p),
        ("out_row", ctypes.c_int64),
        ("bias", ctypes.c_void_p),
        ("add", ctypes.c_int64),
        ("parts", ctypes.c_int64),
    )


@cache
def open_tiles() -> ctypes.CDLL | str:
    """The library, where it was built and this machine runs it, or why not, in words."""
    if sys.platform != "linux" or platform.machine().lower() not in ("x86_64", "amd64"):
        return NO_TILES
    library = open_built(STEM)
    if isinstance(library, str):
        return library
    if not hasattr(library, "formers_product_size") or library.formers_product_size() != ctypes.sizeof(Product):
        return STALE
    return library if library.formers_runs_here() else NO_TILES


def refuses_tiles(*tensors: Tensor) -> str | None:
    """Why tiles cannot multiply these, in words; None where they can."""
    for t in tensors:
        if t.device.type != "cpu" or t.dtype != torch.float32:
            kind = str(t.dtype).removeprefix("torch.")
            return f"tiles multiply float32 on the CPU, not {kind} on {t.device.type}"
    library = open_tiles()
    return library if isinstance(library, str) else None


def multiply_into(
    outs: Sequence[Tensor],
    a: Sequence[Tensor],
    b: Sequence[Tensor],
    biases: Sequence[Tensor] = (),
    *,
    add: bool = False,
    parts: int = 3,
    threads: int | None = None,
) -> None:
    """Each of outs (M, N) becomes its a (M, K) @ b (K, N), plus its bias (N,) if there are any, plus itself if `add`.

    They are shared among threads together, so none may read what another writes. parts: 3, as exact as float32, or 2, with an
    error of some 2^-17 of each number, in less time. A sum does not depend on the number of threads, which is PyTorch's
    if None. Raises `FormersError` where `refuses_tiles` says why, and where shapes do not fit.
    """
    library = open_tiles()
    if (problem := refuses_tiles(*outs, *a, *b, *biases)) is not None or isinstance(library, str):
        raise FormersError(problem or str(library))
    if not (len(outs) == len(a) == len(b) and len(biases) in (0, len(outs)) and parts in (2, 3)):
        raise FormersError(f"as many outputs, matrices and biases are multiplied in 2 or 3 parts, not in {parts}")
    if not outs:
        return
    each = zip(outs, a, b, biases or repeat(None, len(outs)), strict=True)
    held = [_ready(*given) for given in each]  # whose memory must stay until all is done
    products = (Product * len(held))(*(_product(*given, add, parts) for given in held))
    code = library.formers_multiply(
        products, ctypes.c_int64(len(held)), ctypes.c_int64(threads or torch.get_num_threads())
    )
    if code:
        raise FormersError(FAILURES[code])


Given = tuple[Tensor, Tensor, Tensor, Tensor | None]


def _ready(out: Tensor, a: Tensor, b: Tensor, bias: Tensor | None) -> Given:
    """The same, as the library reads them."""
    shapes = [tuple(t.shape) for t in (out, a, b, bias) if t is not None]
    if not _fit(*shapes) or (out.stride(1) != 1 and out.shape[1] > 1):
        raise FormersError(f"an output whose rows lie in memory, two matrices and a bias do not multiply as {shapes}")
    return out, _side_by_side(a), _side_by_side(b), None if bias is None else bias.contiguous()


def _product(out: Tensor, a: Tensor, b: Tensor, bias: Tensor | None, add: bool, parts: int) -> Product:
    sizes = (out.shape[0], out.shape[1], a.shape[1])
    left, right = (Matrix(t.data_ptr(), *t.stride()) for t in (a, b))
    return Product(
        *(*sizes, left, right, out.data_ptr(), out.stride(0)),
        *(None if bias is None else bias.data_ptr(), int(add), parts),
    )


def _fit(out: tuple[int, ...], a: tuple[int, ...], b: tuple[int, ...], bias: tuple[int, ...] | None = None) -> bool:
    if not len(out) == len(a) == len(b) == 2 or 0 in (*a, *b):
        return False
    return out == (a[0], b[1]) and a[1] == b[0] and bias in (None, (b[1],))


def _side_by_side(t: Tensor) -> Tensor:
    """With rows or columns whose numbers lie side by side."""
    return t if 1 in t.stride() else t.contiguous()
