"""Room for large tensors, which is kept for the next ones of nearly the same size.

What is larger than 32 MiB malloc gives back to the system as soon as it is freed, and the next tensor of that size begins with
pages that the system has yet to find and to fill with zeros. In a step of training on a long text that is a quarter of
the time. PyTorch has no allocator of its own on the CPU; what is made here finds the room that was last freed here.
Linux may take kept memory whenever it needs some, though it counts as the process's until then.
"""

import ctypes
import math
import sys
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

from formers.native.library import STALE, open_built

STEM = "_kept"
# Bytes. What is smaller malloc keeps by itself, sooner or later, and small models, which have much of it, would hold more.
LEAST = 1 << 24

# PyCapsule_New(pointer, name, destructor), by which Python hands over what DLPack calls a tensor.
_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)
_NAME = b"dltensor"  # capsules point to their name


@cache
def open_kept() -> ctypes.CDLL | str:
    """The library, or why there is none, in words."""
    if sys.platform != "linux":
        return "memory is kept on Linux alone"
    library = open_built(STEM)
    if isinstance(library, str):
        return library
    if not hasattr(library, "formers_take_kept"):
        return STALE
    library.formers_take_kept.restype = ctypes.c_void_p
    return library


def new_empty(like: Tensor, shape: Sequence[int]) -> Tensor:
    """`like.new_empty(shape)`, in room that was kept if it is large."""
    made = _taken(torch.empty(shape, device="meta")) if _wants(like, math.prod(shape)) else None
    return like.new_empty(shape) if made is None else made


def empty_like(like: Tensor) -> Tensor:
    """`torch.empty_like(like)`, likewise."""
    made = _taken(torch.empty_like(like, device="meta")) if _wants(like, like.numel()) else None
    return torch.empty_like(like) if made is None else made


def widened(t: Tensor, dtype: torch.dtype) -> Tensor:
    """`t.to(dtype)`, likewise; without a gradient."""
    return t if t.dtype == dtype else new_empty(t.new_empty(0, dtype=dtype), t.shape).copy_(t)


def release() -> None:
    """Give all memory that is kept back to the system, as `torch.cuda.empty_cache` does on a GPU."""
    library = open_kept()
    if not isinstance(library, str):
        library.formers_release_kept()


def sizes() -> tuple[int, int]:
    """How many bytes are used by tensors that were made here, and how many are kept; 0 without the library."""
    library, numbers = open_kept(), (ctypes.c_int64 * 2)()
    if not isinstance(library, str):
        library.formers_tell_kept(ctypes.byref(numbers), ctypes.byref(numbers, ctypes.sizeof(ctypes.c_int64)))
    return numbers[0], numbers[1]


def _wants(like: Tensor, numbers: int) -> bool:
    """Whether that many numbers beside a tensor are to be made here."""
    if numbers * like.element_size() < LEAST or like.dtype != torch.float32 or like.device.type != "cpu":
        return False
    return type(like) in (Tensor, nn.Parameter) and not torch.compiler.is_compiling()


def _taken(meta: Tensor) -> Tensor | None:
    """A tensor of float32 with the shape and the strides of another; None where there is no room for it."""
    library = open_kept()
    if isinstance(library, str):
        return None
    shape, strides = ((ctypes.c_int64 * meta.dim())(*numbers) for numbers in (meta.shape, meta.stride()))
    size = ctypes.c_int64(meta.numel() * 4)
    pointer = library.formers_take_kept(size, ctypes.c_int64(meta.dim()), shape, strides)
    return None if pointer is None else torch.from_dlpack(_capsule(pointer, _NAME, None))
