"""The claim on Image Transformer, at its smallest."""

import io

from rich.console import Console

from formers import claim


def test_both_kinds_of_blocks_are_measured_against_their_goals() -> None:
    rows = claim.run("image_transformer", console=Console(file=io.StringIO(), width=160), quick=True)
    assert [str(row.goal) for row in rows] == ["value <= 0.1", "value >= 1.9"]
    assert all(0 < row.value < 10 for row in rows)
    assert [row.name[:2] for row in rows] == ["2D", "1D"]
