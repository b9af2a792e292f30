"""The price of Longformer's attention, worked out by hand."""

import pytest

from formers import MLP, Block, Encoder, LongformerAttention, Window
from formers.report.cost import cost


def test_windows_and_one_global_token() -> None:
    spec = Encoder("mine", 40, 16, (Block((LongformerAttention(2, Window(3)), MLP(8))),))
    length, dim = 100, 16
    (row,) = (row for row in cost(spec, length).parts if row.name == "LongformerAttention")
    windows = (5 * length - 2 * (1 + 2)) / length
    projections = 2 * dim * dim * (6 + 1 / length)  # q, k, v and output; k and v of all for the global token; its q
    assert row.price.operations == pytest.approx(projections + 4 * dim * (windows + 2))
    assert row.price.parameters == 7 * (dim * dim + dim)
