"""Groups of weights as small integers and a scale, symmetric about zero.

int8: the scale is just large enough for the largest weight of the group, so no error exceeds half of it. int4: of a few
scales the one with the least squared error, then fitted to the integers that it gives. Its largest weight may be the
-8 that has no +8 beside it, so scales may be negative, or be cut off, where that brings the others nearer.
"""

import torch
from torch import Tensor

from formers.errors import ConfigError

GROUPS = {"int8": 64, "int4": 32}  # columns that share a scale, if not told otherwise
# The largest weight of a group is so many steps of int4 from zero: 7 and 8 can be represented, beyond it is cut off.
STEPS = (7.0, 7.5, 8.0, 8.5, 9.0, 9.75, 10.5)
LARGEST = 127


def quantise(numbers: Tensor, type: str, group: int) -> tuple[Tensor, Tensor]:
    """Codes, uint8 (rows, bytes), and scales, bf16 (rows, groups), of fp32 numbers (rows, columns), columns % 64 == 0.

    Raises `ConfigError` on numbers that are not finite.
    """
    if not numbers.isfinite().all():
        raise ConfigError(f"weights that are not finite cannot be stored in {type}: store them in fp32 or bf16")
    groups = _grouped(numbers, group)
    whole, scales = _in_8(groups) if type == "int8" else _in_4(groups)
    whole = whole.flatten(1)[:, : numbers.shape[1]].to(torch.int8)
    return (whole.view(torch.uint8) if type == "int8" else _join(whole)), scales.flatten(1).bfloat16()


def dequantise(codes: Tensor, scales: Tensor, type: str, group: int) -> Tensor:
    """The numbers, fp32 (rows, columns), that codes and scales stand for."""
    whole = codes.view(torch.int8) if type == "int8" else _split(codes)
    each = scales.float().repeat_interleave(group, 1)[:, : whole.shape[1]]
    return whole[:, : each.shape[1]] * each


def _in_8(groups: Tensor) -> tuple[Tensor, Tensor]:
    scales = _round_up(groups.abs().amax(-1, keepdim=True) / LARGEST)
    return _nearest(groups, scales, -LARGEST, LARGEST), scales


def _in_4(groups: Tensor) -> tuple[Tensor, Tensor]:
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    best, whole, scales = _fitted(groups, largest / -STEPS[0])
    for steps in STEPS[1:]:
        found = _fitted(groups, largest / -steps)
        better = found[0] < best
        best, whole, scales = (
            torch.where(better, new, old) for new, old in zip(found, (best, whole, scales), strict=True)
        )
    return whole, scales


def _fitted(groups: Tensor, by: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes for scales near `by`, and the scales that then fit them best: the squared error, the codes, the scales."""
    codes = _nearest(groups, by.bfloat16().float(), -8, 7)
    scales = (codes * groups).sum(-1, keepdim=True) / (codes * codes).sum(-1, keepdim=True).clamp(min=1)
    scales = scales.bfloat16().float()
    return (codes * scales - groups).square().sum(-1, keepdim=True), codes, scales


def _nearest(groups: Tensor, scales: Tensor, low: int, high: int) -> Tensor:
    """The nearest multiples; those of a scale of zero are zero."""
    return torch.where(scales == 0, 0.0, groups / scales).round().clamp(low, high)


def _round_up(scales: Tensor) -> Tensor:
    """To bf16 numbers that are not below: the largest weight must not be cut off."""
    bits = scales.view(torch.int32)
    return ((bits + 0xFFFF) & ~0xFFFF).view(torch.float32)


def _grouped(numbers: Tensor, group: int) -> Tensor:
    more = -numbers.shape[1] % group
    return torch.nn.functional.pad(numbers, (0, more)).unflatten(1, (-1, group))


def _join(whole: Tensor) -> Tensor:
    """Two of -8 to 7 in a byte: in every 64 columns, the second half above the first."""
    halves = (whole + 8).view(torch.uint8).unflatten(1, (-1, 2, 32))
    return (halves[:, :, 0] | halves[:, :, 1] << 4).flatten(1)


def _split(codes: Tensor) -> Tensor:
    runs = codes.unflatten(1, (-1, 1, 32))
    return torch.cat([runs & 15, runs >> 4], 2).flatten(1).to(torch.int8) - 8
