"""Products with chosen rows of a matrix, on the CPU in fp32: every row of x has chosen one of N rows in each block."""

import ctypes

import torch
from torch import Tensor

from formers.errors import FormersError
from formers.native.library import FAILURES, STALE, fastest, loaded, missing, open_library

PRODUCTS = ("formers_unit_products", "formers_unit_sums", "formers_unit_outers")
DRAWS = ("formers_draw_units", "formers_weigh_units", "formers_slope_units")
CONTROL = ("formers_control", "formers_control_backward")


class Units(ctypes.Structure):
    """The same as `Units` in source/units.h, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "blocks", "size", "width")),
        ("picked", ctypes.c_void_p),
    )


class Arrays(ctypes.Structure):
    """The same as `UnitArrays` in source/units.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("values", "x", "matrix", "bias")),
        ("turned", ctypes.c_int64),
    )


def refuses_units(*tensors: Tensor) -> str | None:
    """Why the native kernels cannot work on these, in words; None where they can."""
    for t in tensors:
        if t.device.type != "cpu" or t.dtype != torch.float32:
            kind = str(t.dtype).removeprefix("torch.")
            return f"the native kernels multiply float32 on the CPU, not {kind} on {t.device.type}"
    absent = missing()
    if absent is None and not all(hasattr(open_library(), function) for function in PRODUCTS + DRAWS + CONTROL):
        return STALE
    return absent


def products(x: Tensor, matrix: Tensor, picked: Tensor, *, kernel: str | None = None) -> Tensor:
    """x (R, M) by the rows picked (R, K), from 0 to N - 1 in each block, of a matrix (K N, M): (R, K)."""
    values = x.new_empty(picked.shape)
    _multiply("formers_unit_products", values, x, matrix, picked, kernel)
    return values


def sums(
    values: Tensor, matrix: Tensor, picked: Tensor, bias: Tensor | None = None, *, kernel: str | None = None
) -> Tensor:
    """The picked rows, weighted by values (R, K), summed over the blocks, plus bias (M,) if there is one: (R, M)."""
    x = matrix.new_empty(len(picked), matrix.shape[1])
    _multiply("formers_unit_sums", values, x, matrix, picked, kernel, bias)
    return x


def outers(
    values: Tensor, x: Tensor, picked: Tensor, size: int, *, turned: bool = False, kernel: str | None = None
) -> Tensor:
    """The gradient by a matrix (K N, M) of either, with blocks of N = size: for each of its rows, the sum of the rows of
    x (R, M) that picked it, by values (R, K). turned: (M, K N)."""
    sides = (size * picked.shape[1], x.shape[1])
    matrix = x.new_empty(sides[::-1] if turned else sides)
    _multiply("formers_unit_outers", values, x, matrix, picked, kernel, turned=turned)
    return matrix


def run(function: str, structures: list[ctypes.Structure], kernel: str | None) -> None:
    """Call the library, with as many threads as PyTorch has. Raises `FormersError` in words where it fails."""
    name = (kernel or fastest()).encode()
    code = loaded()[function](*map(ctypes.byref, structures), name, ctypes.c_int64(torch.get_num_threads()))
    if code:
        raise FormersError(FAILURES[code])


def checked(picked: Tensor, size: int) -> Tensor:
    """Choices as the library takes them, int32; raises `FormersError` where one is none of `size`."""
    if picked.numel() and not 0 <= int(picked.min()) <= int(picked.max()) < size:
        found = f"from {int(picked.min())} to {int(picked.max())}"
        raise FormersError(f"choices lie from 0 to {size - 1} in blocks of {size}, not {found}")
    return picked.int().contiguous()


def _multiply(
    function: str,
    values: Tensor,
    x: Tensor,
    matrix: Tensor,
    picked: Tensor,
    kernel: str | None,
    bias: Tensor | None = None,
    turned: bool = False,
) -> None:
    """What comes in is made contiguous; what goes out was made here, and is."""
    held = [values.contiguous(), x.contiguous(), matrix.contiguous(), None if bias is None else bias.contiguous()]
    size = matrix.numel() // (picked.shape[1] * x.shape[1])
    chosen = checked(picked, size)
    units = Units(*chosen.shape, size, x.shape[1], chosen.data_ptr())
    run(function, [units, Arrays(*(None if t is None else t.data_ptr() for t in held), int(turned))], kernel)
