"""How weights of sparse layers are laid out, read back by their definition."""

import pytest
import torch

from formers.native.engine.blocks import DEPTH, choices, gates, panel_width, panels, units
from formers.native.engine.pieces import MOST, pieces_of


@pytest.mark.parametrize(
    ("outputs", "width"), [(1, 16), (16, 16), (64, 64), (144, 48), (288, 48), (8000, 80), (4000, 80)]
)
def test_panels_leave_no_rest(outputs: int, width: int) -> None:
    assert panel_width(outputs) == width


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8", "int4"])
def test_every_weight_has_its_place(dtype: str) -> None:
    """Input i and output o of the t-th product stand in the row of o's panel, product t and i's block."""
    parts = [torch.randn(70, 100) for _ in range(2)]
    packed, width, blocks = panels(parts, dtype), panel_width(100), 3
    assert packed.shape == (112 // width * 2 * blocks, DEPTH * width)
    for t, part in enumerate(parts):
        for i, o in ((0, 0), (1, 0), (33, 17), (69, 99)):
            row = (o // width * 2 + t) * blocks + i // DEPTH
            within = i % DEPTH
            column = within * width + o % width
            if dtype != "fp32":
                column = (within // 2 * width + o % width) * 2 + within % 2
            assert packed[row, column] == part[i, o]
    assert packed.count_nonzero() == sum(part.count_nonzero() for part in parts)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_gates_stand_block_by_block(dtype: str) -> None:
    gate = torch.randn(5, 40)
    packed = gates(gate, dtype)
    assert packed.shape == (2, 5 * DEPTH)
    for s, i in ((0, 0), (4, 31), (2, 39), (3, 17)):
        within = i % DEPTH
        place = within if dtype == "fp32" else within % 16 * 2 + within // 16
        assert packed[i // DEPTH, s * DEPTH + place] == gate[s, i]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_controller_stands_block_by_block(dtype: str) -> None:
    weight = torch.randn(4 * 20, 3)  # 4 blocks of 20 units, rank 3: padded to 32 units and rank 4
    packed = choices(weight, 20, dtype)
    assert packed.shape == (4, 4 * 32)
    for block, unit, rank in ((0, 0, 0), (3, 19, 2), (1, 7, 1)):
        column = rank * 32 + unit if dtype == "fp32" else (rank // 2 * 32 + unit) * 2 + rank % 2
        assert packed[block, column] == weight[block * 20 + unit, rank]


def test_a_unit_is_two_rows() -> None:
    up, down = torch.randn(6, 4), torch.randn(4, 6)
    both = units(up, down)
    torch.testing.assert_close(both[2 * 5], up[5])
    torch.testing.assert_close(both[2 * 5 + 1], down[:, 5])


def test_work_is_cut_by_its_bytes() -> None:
    assert pieces_of("fp32", 100) == 1
    assert pieces_of("bf16", 196_608) == 6
    assert pieces_of("int8", 10**9) == MOST
