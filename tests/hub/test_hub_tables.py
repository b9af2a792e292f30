"""The tables themselves: every transformation is exact both ways, and every tensor of a family has one row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from formers import hub, make
from formers.hub.table import Row, Table
from formers.hub.transform import Interleaved, OneRow, Same, Thirds, Transform, Transposed, TransposedThirds

FAMILIES = ["gpt2", "llama", "bloom", "bert", "roberta", "roformer", "longformer", "marian", "reformer"]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6))
def test_transformations_are_exact_both_ways(heads: int, head_dim: int, width: int) -> None:
    cases: list[tuple[Transform, tuple[int, ...], list[tuple[int, ...]]]] = [
        (Same(), (width, 3), [(width, 3)]),
        (Transposed(), (width, 3), [(3, width)]),
        (Thirds(), (3 * width,), [(width,)] * 3),
        (TransposedThirds(), (head_dim, 3 * width), [(width, head_dim)] * 3),
        (Interleaved(heads), (heads * 3 * head_dim, width), [(heads * head_dim, width)] * 3),
        (Interleaved(heads), (heads * 3 * head_dim,), [(heads * head_dim,)] * 3),
        (OneRow(), (1, width), [(width,)]),
    ]
    for transform, shape, ours in cases:
        theirs = torch.randn(shape)
        parts = transform.ours(theirs)
        assert [tuple(part.shape) for part in parts] == ours
        assert torch.equal(transform.theirs(parts), theirs)


def test_interleaved_rows_are_query_key_value_of_each_head() -> None:
    rows = torch.tensor([0, 1, 10, 11, 20, 21, 2, 3, 12, 13, 22, 23])
    q, k, v = Interleaved(heads=2).ours(rows)
    assert (q.tolist(), k.tolist(), v.tolist()) == ([0, 1, 2, 3], [10, 11, 12, 13], [20, 21, 22, 23])


@pytest.mark.parametrize("family", FAMILIES)
def test_names_are_claimed_once(family: str) -> None:
    is_decoder = {"is_decoder": True} if family == "reformer" else {}  # its encoder is not mapped
    spec = hub.spec_from_config({"model_type": family, "vocab_size": 20} | is_decoder)
    with torch.device("meta"):
        model = spec.build()
    names = dict(model.named_parameters())
    rows = hub.FORMATS[family].weights(spec).rows_for(names)
    claimed = [name for row in rows for name in row.ours]
    assert sorted(claimed) == sorted(names)
    assert len({row.theirs for row in rows}) == len(rows)


def test_a_tensor_without_a_row_is_never_dropped() -> None:
    table = Table("", (Row("a.{n}.*", "x.blocks.{n}.norm.*"),))
    assert [row.theirs for row in table.rows_for(["x.blocks.0.norm.weight", "x.blocks.1.norm.weight"])] == [
        "a.0.weight",
        "a.1.weight",
    ]
    with pytest.raises(LookupError, match=r"no row for x.blocks.0.gain"):
        table.rows_for(["x.blocks.0.norm.weight", "x.blocks.0.gain"])


def test_the_smallest_members_have_rows() -> None:
    spec = make("gpt2", vocab=20, dim=8, depth=1, heads=2, length=4)
    assert len(hub.FORMATS["gpt2"].weights(spec).rows_for(dict(spec.build().named_parameters()))) == 16
