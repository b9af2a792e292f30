"""The nearest of some axes and their opposites, which PyTorch's argmax finds one number at a time."""

import ctypes

import torch
from torch import Tensor

from formers.native.library import loaded, missing


def refuses_hashing(turned: Tensor) -> str | None:
    """Why the native code cannot tell the nearest axes of this, in words; None where it can."""
    if turned.device.type != "cpu" or turned.dtype != torch.float32:
        return f"the native code hashes float32 on the CPU, not {turned.dtype} on {turned.device.type}"
    return missing()


def add_nearest(turned: Tensor, bucket: Tensor, stride: int) -> None:
    """Add to buckets (B, H, R, T), int32, the nearest axis of `turned` (B, H, T, R, A), times stride.

    Axis a is number a, its opposite A + a; of equals the first is taken. bucket may be a piece of more tokens.
    """
    turned = turned.contiguous()
    _, heads, tokens, rounds, axes = turned.shape
    for of_row, into in zip(turned, bucket, strict=True):
        if into.stride(-1) != 1:
            raise ValueError("the buckets of successive tokens must stand side by side")
        sizes = (heads, tokens, rounds, axes, into.stride(0), into.stride(1), stride, torch.get_num_threads())
        pointers = (ctypes.c_void_p(of_row.data_ptr()), ctypes.c_void_p(into.data_ptr()))
        loaded().formers_nearest(*pointers, *map(ctypes.c_int64, sizes))
