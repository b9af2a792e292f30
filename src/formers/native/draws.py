"""Choices among the numbers of each block, and the softmax at what was chosen alone, on the CPU in fp32."""

import ctypes
from collections.abc import Mapping

import torch
from torch import Tensor

from formers.native.units import checked, refuses_units, run

MOST = 1024  # choices in a block; see source/units.h


class Draws(ctypes.Structure):
    """The same as `Draws` in source/units.h, field by field."""

    _fields_ = (
        ("blocks", ctypes.c_int64),
        ("size", ctypes.c_int64),
        ("sharpness", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("logits", "shares", "picked", "chances", "peaks", "totals", "slopes")),
    )


def refuses_draws(logits: Tensor) -> str | None:
    """Why the native kernels cannot choose among these (..., N), in words; None where they can."""
    if not 1 <= logits.shape[-1] <= MOST:
        return f"the native kernels choose among up to {MOST}, not {logits.shape[-1]}"
    return refuses_units(logits)


def draw(
    logits: Tensor, shares: Tensor | None = None, temperature: float = 1.0, *, kernel: str | None = None
) -> Tensor:
    """One of each (..., N), int32: where running sums of softmax(logits / temperature) pass the shares (...), from 0 to
    below 1, of their total; the largest where there are no shares. Of equals it is the first."""
    picked = torch.empty(logits.shape[:-1], dtype=torch.int32)
    _run("formers_draw_units", logits, kernel, {"shares": shares, "picked": picked}, 1 / temperature)
    return picked


def weigh(logits: Tensor, picked: Tensor, *, kernel: str | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The softmax of logits (..., N) at the choices (...); and the largest logits and sums of exponentials above it."""
    chosen = checked(picked, logits.shape[-1])
    chances, peaks, totals = (logits.new_empty(picked.shape) for _ in range(3))
    made = {"chances": chances, "peaks": peaks, "totals": totals}
    _run("formers_weigh_units", logits, kernel, {"picked": chosen} | made)
    return chances, peaks, totals


def slope(
    upstream: Tensor,
    logits: Tensor,
    picked: Tensor,
    chances: Tensor,
    peaks: Tensor,
    totals: Tensor,
    *,
    kernel: str | None = None,
) -> Tensor:
    """The gradient by logits of one (...) by the chances that `weigh` gave."""
    slopes = torch.empty_like(logits, memory_format=torch.contiguous_format)
    chosen = checked(picked, logits.shape[-1])
    known = {"chances": chances, "peaks": peaks, "totals": totals}
    _run("formers_slope_units", logits, kernel, {"shares": upstream, "picked": chosen, "slopes": slopes} | known)
    return slopes


def _run(
    function: str, logits: Tensor, kernel: str | None, tensors: Mapping[str, Tensor | None], sharpness: float = 1.0
) -> None:
    """What comes in is made contiguous; what goes out was made here, and is."""
    held = {name: t.contiguous() for name, t in tensors.items() if t is not None} | {"logits": logits.contiguous()}
    draws = Draws(logits.numel() // logits.shape[-1], logits.shape[-1], sharpness)
    for name, t in held.items():
        setattr(draws, name, t.data_ptr())
    run(function, [draws], kernel)
