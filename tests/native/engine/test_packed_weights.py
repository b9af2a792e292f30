"""Packed weights hold what their type promises."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from formers.errors import ConfigError
from formers.native.engine.weights import TYPES, pack, row_bytes, unpack

SHAPES = [(1, 1), (3, 31), (5, 64), (4, 100), (2, 1088)]


@pytest.fixture
def built() -> None:
    """Packing needs no extension."""


@pytest.mark.parametrize("shape", SHAPES)
def test_floats_are_kept_or_rounded_to_even(shape: tuple[int, int]) -> None:
    numbers = torch.randn(shape)
    torch.testing.assert_close(unpack(pack(numbers, "fp32")), numbers, rtol=0, atol=0)
    torch.testing.assert_close(unpack(pack(numbers, "bf16")), numbers.bfloat16().float(), rtol=0, atol=0)


def test_bf16_ties_go_to_even() -> None:
    halfway = torch.tensor([[1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8]])
    assert unpack(pack(halfway, "bf16")).tolist() == [[1.0, 1 + 2.0**-6, -1.0]]


@pytest.mark.parametrize("group", [32, 64, 192])
@pytest.mark.parametrize("shape", SHAPES)
def test_int8_is_within_half_a_step(shape: tuple[int, int], group: int) -> None:
    numbers = torch.randn(shape) * torch.logspace(-3, 3, shape[1])
    packed = pack(numbers, "int8", group)
    for first in range(0, shape[1], group):
        some = slice(first, first + group)
        step = numbers[:, some].abs().amax(1, keepdim=True) / 127 * (1 + 2.0**-7)  # the scale is rounded up to bf16
        wrong = (unpack(packed)[:, some] - numbers[:, some]).abs()
        assert (wrong <= step * 0.5001).all()


@pytest.mark.parametrize("group", [32, 64, 192])
def test_int4_is_nearer_than_the_largest_number_in_seven_steps(group: int) -> None:
    numbers = torch.randn(64, 5 * group)
    groups = numbers.unflatten(1, (-1, group))
    step = (groups.abs().amax(-1, keepdim=True) / 7).bfloat16().float()
    plain = (groups / step).round().clamp(-8, 7) * step
    kept = unpack(pack(numbers, "int4", group)).unflatten(1, (-1, group))
    wrong, wrong_plainly = ((x - groups).square().sum(-1) for x in (kept, plain))
    assert (wrong <= wrong_plainly * 1.02).all()  # the fitted scale is rounded to bf16 too
    assert wrong.mean() < 0.8 * wrong_plainly.mean()


def test_int4_keeps_what_it_can_represent() -> None:
    whole = torch.arange(-8.0, 8.0).repeat(4).view(1, 64)
    torch.testing.assert_close(unpack(pack(whole * 0.25, "int4")), whole * 0.25, rtol=0, atol=0)


@pytest.mark.parametrize("type", TYPES)
def test_zeros_stay_zeros(type: str) -> None:
    assert not unpack(pack(torch.zeros(3, 70), type)).any()


@given(st.sampled_from(TYPES), st.integers(1, 700), st.sampled_from([32, 64, 128]))
def test_rows_are_whole_lines_and_padded_with_zeros(type: str, columns: int, group: int) -> None:
    group = group if type.startswith("int") else 0
    packed = pack(torch.ones(2, columns), type, group or None)
    assert packed.stride == row_bytes(type, columns, group)
    assert packed.stride % 64 == 0
    assert packed.data.ctypes.data % 64 == 0
    assert packed.data.shape == (2, packed.stride)
    scales = -(-columns // group) * 2 if group else 0
    least = {"fp32": 4 * columns, "bf16": 2 * columns, "int8": columns, "int4": (columns + 1) // 2}[type] + scales
    assert least <= packed.stride < least + 128


@pytest.mark.parametrize("type", TYPES)
def test_a_tensor_without_numbers_gets_random_ones(type: str) -> None:
    meta = torch.empty(5000, 1000, device="meta")
    numbers = unpack(pack(meta, type))
    assert numbers.shape == meta.shape
    assert 0.9 < numbers.std() * 1000**0.5 < 1.1
    torch.testing.assert_close(unpack(pack(meta, type)), numbers, rtol=0, atol=0)
    assert (unpack(pack(meta, type, seed=1)) != numbers).any()


def test_arrays_and_halves_are_packed_too() -> None:
    numbers = np.float32([[1.5, -2.0], [0.25, 8.0]])
    assert unpack(pack(numbers, "bf16")).tolist() == numbers.tolist()
    assert unpack(pack(torch.from_numpy(numbers).bfloat16(), "fp32")).tolist() == numbers.tolist()


def test_mapped_weights_can_be_read_only() -> None:
    packed = pack(torch.ones(2, 3), "fp32")
    packed.data.flags.writeable = False
    assert unpack(packed).tolist() == [[1.0] * 3] * 2


def test_what_cannot_be_packed_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match="can be fp32, bf16, int8, int4, not 'int3'"):
        pack(torch.ones(2, 2), "int3")
    with pytest.raises(ConfigError, match="multiple of 64, not 48"):
        pack(torch.ones(2, 2), "int8", 48)
    with pytest.raises(ConfigError, match="leave out group=64"):
        pack(torch.ones(2, 2), "bf16", 64)
    with pytest.raises(ConfigError, match="not finite"):
        pack(torch.tensor([[1.0, torch.inf]]), "int4")
    with pytest.raises(ConfigError, match=r"shape \(3,\)"):
        pack(torch.ones(3), "fp32")
