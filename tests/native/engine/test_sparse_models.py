"""Models of sparse layers in the sizes that their paper times: every part has a rule, and few weights are read."""

from typing import Any

import pytest
import torch
from torch import nn

from formers.family.registry import make
from formers.native.engine.lower import outline
from formers.native.engine.program import Program

PRESETS = ("800m", "7b", "17b")
# Operations that read their weights whole, and those that read chosen rows of their last matrix.
CHOOSING = ("sparse_feedforward", "experts")


def without_weights(name: str, preset: str, **arguments: Any) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = make(name, preset, **arguments).build()
    return model


def read_by_a_token(program: Program) -> int:
    """Bytes of weights, of the embedding one row."""
    total = 0
    for op in program.ops:
        matrices = [program.matrices[number] for number in op.matrices]
        if op.name in ("embed", "place"):
            total += sum(matrix.stride for matrix in matrices)
            continue
        for matrix in matrices[:-1] if op.name in CHOOSING else matrices:
            total += matrix.rows * matrix.stride
        if op.name == "sparse_feedforward":
            total += 2 * matrices[1].rows * matrices[2].stride
    return total


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["scaling_transformer", "terraformer_lm"])
@pytest.mark.parametrize("dtype", ["bf16", "int8"])
def test_the_sizes_of_the_paper_have_rules(name: str, preset: str, dtype: str) -> None:
    program = outline(without_weights(name, preset), dtype)
    names = {op.name for op in program.ops}
    assert {"sparse_feedforward", "multiplicative", "module_convolution"} <= names
    assert ("recurrent" in names) == (name == "terraformer_lm")


@pytest.mark.parametrize("name", ["scaling_transformer_translation", "terraformer"])
def test_the_target_sides_of_encoders_have_rules(name: str) -> None:
    assert "sparse_feedforward" in {op.name for op in outline(without_weights(name, "800m"), "bf16").ops}


@pytest.mark.parametrize(("preset", "least"), [("800m", 15), ("17b", 70)])
def test_a_token_reads_a_small_part_of_what_it_reads_of_the_dense_model(preset: str, least: int) -> None:
    dense, sparse = (
        read_by_a_token(outline(without_weights("scaling_transformer", preset, **given), "bf16"))
        for given in ({"sparse": ()}, {})
    )
    assert dense > least * sparse


@pytest.mark.parametrize(
    ("sparse", "found"),
    [
        (("feed_forward",), {"sparse_feedforward"}),
        (("qkv",), {"multiplicative", "module_convolution"}),
        (("loss",), {"multiplicative"}),
        ((), set()),
    ],
)
def test_every_row_of_the_ablation_has_rules(sparse: tuple[str, ...], found: set[str]) -> None:
    program = outline(without_weights("scaling_transformer", "800m", sparse=sparse), "bf16")
    own = {"sparse_feedforward", "multiplicative", "module_convolution"}
    assert {op.name for op in program.ops} & own == found
