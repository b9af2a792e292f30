"""Matrix products: by tiles (AMX) where the processor has them and they pay, else PyTorch's.

`torch.set_float32_matmul_precision` holds for both: "highest", the default, is as exact as float32, "high" means that each
number is the sum of two in bf16, and "medium" is left to PyTorch.
"""

import math
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.flop_counter import register_flop_formula

from formers.native import kept
from formers.native.gemm import multiply_into, refuses_tiles

PARTS = {"highest": 3, "high": 2}
LEAST = 1 << 28  # multiplications a thread from which on tiles are faster than vectors, and at least so many rows,
NARROW = 128  # columns and numbers in a sum


def multiply(
    a: Tensor, b: Tensor, bias: Tensor | None = None, *, out: Tensor | None = None, add: bool = False
) -> Tensor:
    """a (M, K) @ b (K, N), plus bias (N,) if there is one. Into `out` if that is given, where `add` adds.

    Gradients do not flow through it: it is for the inside of functions that have gradients of their own.
    """
    out = kept.new_empty(a, (a.shape[0], b.shape[1])) if out is None else out
    multiply_all([out], [a], [b], [] if bias is None else [bias], add=add)
    return out


def multiply_all(
    outs: list[Tensor], a: list[Tensor], b: list[Tensor], biases: list[Tensor], *, add: bool = False
) -> None:
    """Each of outs (M, N) becomes its a (M, K) @ b (K, N), plus its bias (N,) if there are any, plus itself if `add`."""
    sizes = [(left.shape[0], right.shape[1], left.shape[1]) for left, right in zip(a, b, strict=True)]
    parts = parts_of_tiles(sizes, *a, *b)
    if parts is not None:
        torch.ops.formers.multiply_into(outs, a, b, biases, add, parts)
        return
    for out, left, right, bias in zip(outs, a, b, biases or repeat(None, len(outs)), strict=True):
        _by_torch(out, left, right, bias, add)


def parts_of_tiles(sizes: list[tuple[int, int, int]], *given: Tensor) -> int | None:
    """How many numbers in bf16 make one where products of (rows, columns, inner) pay by tiles; None: PyTorch multiplies."""
    narrow = min(map(sum, zip(*sizes, strict=True)), default=0) < NARROW * len(sizes)
    if narrow or sum(map(math.prod, sizes)) < LEAST * torch.get_num_threads():
        return None
    if not all(map(_plain, given)) or torch.compiler.is_compiling() or _transformed():
        return None
    return PARTS.get(torch.get_float32_matmul_precision()) if refuses_tiles(*given) is None else None


def _plain(t: Tensor) -> bool:
    return type(t) in (Tensor, nn.Parameter) and t.layout == torch.strided


def _transformed() -> bool:
    """Whether `torch.func` or forward-mode gradients, which look into products, are at work."""
    return bool(torch._C._are_functorch_transforms_active()) or forward_ad._current_level >= 0


def _by_torch(out: Tensor, a: Tensor, b: Tensor, bias: Tensor | None, add: bool) -> None:
    if add:
        out.addmm_(a, b)
        if bias is not None:
            out.add_(bias)
    elif bias is None:
        torch.mm(a, b, out=out)
    else:
        torch.addmm(bias, a, b, out=out)


@torch.library.custom_op("formers::multiply_into", mutates_args=("outs",))
def _multiply_into(
    outs: list[Tensor], a: list[Tensor], b: list[Tensor], biases: list[Tensor], add: bool, parts: int
) -> None:
    multiply_into(outs, a, b, biases, add=add, parts=parts)


@register_flop_formula(torch.ops.formers.multiply_into)
def _operations(outs: Any, a: Any, b: Any, *_: Any, **__: Any) -> int:
    return sum(2 * left[0] * left[1] * right[1] for left, right in zip(a, b, strict=True))
