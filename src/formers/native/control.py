"""A controller of low rank and what it chooses in each block, on the CPU in fp32; its logits are kept nowhere."""

import ctypes
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from formers.native.draws import MOST
from formers.native.units import checked, refuses_units, run

LANES = 16  # the most numbers that a vector holds
GROUPS = 8  # sums of the gradient by the inner numbers, whatever the number of threads
SIZES = ("rows", "blocks", "size", "padded", "rank", "at_once", "given")
ARRAYS = (
    *("inner", "weight", "bias", "shares", "picked", "chances", "peaks", "totals"),
    *("upstream", "by_inner", "by_weight", "by_bias"),
)


class _Controller(ctypes.Structure):
    """The same as `Controller` in source/units.h, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in SIZES),
        ("sharpness", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ARRAYS),
    )


class Matrices(NamedTuple):
    """Logits are weight (K N, rank) times inner numbers, plus bias (K N); block: the N of each block."""

    weight: Tensor
    bias: Tensor
    block: int


class Decided(NamedTuple):
    """picked (R, K) int32; chances: the softmax of each block there; peaks and totals: for the way back."""

    picked: Tensor
    chances: Tensor
    peaks: Tensor
    totals: Tensor


def refuses_control(inner: Tensor, of: Matrices) -> str | None:
    """Why the native kernels cannot choose by these, in words; None where they can."""
    if not 1 <= of.block <= MOST:
        return f"the native kernels choose among up to {MOST}, not {of.block}"
    return refuses_units(inner, of.weight, of.bias)


def decide(
    inner: Tensor,
    of: Matrices,
    *,
    picked: Tensor | None = None,
    shares: Tensor | None = None,
    temperature: float = 1.0,
    kernel: str | None = None,
) -> Decided:
    """What inner (R, rank) chooses in each block: `picked` (R, K) if given; else by shares (R, K) from 0 to below 1 of the
    running sums of softmax(logits / temperature); else the largest, of equals the first."""
    blocks = len(of.weight) // of.block
    shape = (len(inner), blocks)
    chosen = torch.empty(shape, dtype=torch.int32) if picked is None else checked(picked, of.block)
    made = Decided(chosen, *(inner.new_empty(shape) for _ in range(3)))
    arrays = _laid(inner, of) | made._asdict() | {"shares": shares}
    _run("formers_control", arrays, of, kernel, given=picked is not None, sharpness=1 / temperature)
    return made


def teach(
    upstream: Tensor, inner: Tensor, of: Matrices, decided: Decided, *, kernel: str | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients by inner, weight and bias, of one (R, K) by the chances."""
    arrays = _laid(inner, of)
    blocks, rank, padded = arrays["weight"].shape
    groups = -(-blocks // -(-blocks // GROUPS))
    made = {
        "by_inner": inner.new_zeros(groups, len(inner), rank),
        "by_weight": inner.new_zeros(blocks, rank, padded),
        "by_bias": inner.new_zeros(blocks, padded),
    }
    _run("formers_control_backward", arrays | decided._asdict() | {"upstream": upstream} | made, of, kernel)
    by_weight = made["by_weight"][..., : of.block].mT.reshape(-1, rank)
    return made["by_inner"].sum(0), by_weight, made["by_bias"][:, : of.block].flatten()


def _laid(inner: Tensor, of: Matrices) -> dict[str, Tensor]:
    """The matrices as vectors run over them: the numbers of a block side by side, padded with what is never chosen."""
    weight, bias = of.weight.unflatten(0, (-1, of.block)).mT, of.bias.view(-1, of.block)
    missing = -of.block % LANES
    return {"inner": inner, "weight": F.pad(weight, (0, missing)), "bias": F.pad(bias, (0, missing), value=-torch.inf)}


def _run(
    function: str,
    arrays: Mapping[str, Tensor | None],
    of: Matrices,
    kernel: str | None,
    *,
    given: bool = True,
    sharpness: float = 1.0,
) -> None:
    """What comes in is made contiguous; what goes out was made here, and is."""
    held = {name: t.contiguous() for name, t in arrays.items() if t is not None}
    blocks, rank, padded = held["weight"].shape
    sizes = (len(held["inner"]), blocks, of.block, padded, rank, -(-blocks // GROUPS), int(given))
    controller = _Controller(*sizes, sharpness)
    for name, t in held.items():
        setattr(controller, name, t.data_ptr())
    run(function, [controller], kernel)
