"""Hashing and sorting by hash: the nearest of some axes and their opposites, and tokens in the order of their buckets."""

import ctypes

import torch
from torch import Tensor

from formers.errors import FormersError
from formers.native.library import FAILURES, fastest, loaded, missing


def refuses_hashing(turned: Tensor) -> str | None:
    """Why the native code cannot tell the nearest axes of this, in words; None where it can."""
    if turned.device.type != "cpu" or turned.dtype != torch.float32:
        return f"the native code hashes float32 on the CPU, not {turned.dtype} on {turned.device.type}"
    return missing()


def add_nearest(turned: Tensor, bucket: Tensor, stride: int, kernel: str | None = None) -> None:
    """Add to buckets (B, H, R, T), int32, the nearest axis of `turned` (B, H, T, R, A), times stride.

    Axis a is number a, its opposite A + a; of equals the first is taken. bucket may be a piece of more tokens.
    kernel: as for attention.
    """
    turned = turned.contiguous()
    _, heads, tokens, rounds, axes = turned.shape
    for of_row, into in zip(turned, bucket, strict=True):
        if into.stride(-1) != 1:
            raise ValueError("the buckets of successive tokens must stand side by side")
        sizes = map(ctypes.c_int64, (heads, tokens, rounds, axes, into.stride(0), into.stride(1), stride))
        pointers = (ctypes.c_void_p(of_row.data_ptr()), ctypes.c_void_p(into.data_ptr()))
        name, threads = (kernel or fastest()).encode(), ctypes.c_int64(torch.get_num_threads())
        code = loaded().formers_nearest(*pointers, *sizes, name, threads)
        if code:
            raise FormersError(FAILURES[code])


def refuses_order(bucket: Tensor) -> str | None:
    """Why the native code cannot sort by this, in words; None where it can."""
    if bucket.device.type != "cpu" or bucket.dtype != torch.int32:
        return f"the native code sorts by int32 on the CPU, not by {bucket.dtype} on {bucket.device.type}"
    return missing()


def in_order(bucket: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens in the order of their buckets (.., S), int32 and not negative, and within one in their own; and the place of
    each: (.., S) int32 both."""
    bucket = bucket.contiguous()
    order, slot = torch.empty_like(bucket), torch.empty_like(bucket)
    pointers = (ctypes.c_void_p(t.data_ptr()) for t in (bucket, order, slot))
    length = bucket.shape[-1]
    rows = bucket.numel() // max(1, length)
    loaded().formers_put_in_order(*pointers, *map(ctypes.c_int64, (rows, length, torch.get_num_threads())))
    return order, slot
