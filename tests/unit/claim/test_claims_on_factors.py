"""The claims on members whose attention is factorised by place, at their smallest."""

import io

import pytest
import torch
from rich.console import Console

from formers import Causal, claim
from formers.claim.cases import blockbert, sparse_transformer
from formers.claim.cases.sparse_transformer import CELLS, HEADS, SIDE, Deep
from formers.claim.marker_task import Finder
from formers.family.sparse import factorised


def run(name: str) -> dict:
    rows = claim.run(name, console=Console(file=io.StringIO(), width=160), quick=True)
    return {row.name: row for row in rows}


def test_sparse_transformer_is_held_against_windows_and_all_pixels() -> None:
    rows = run("sparse_transformer")
    ways = [name for name in rows if "," in name and "layers" not in name]
    assert [str(rows[name].goal) for name in ways] == ["value <= 0.1"] * 3 + ["value <= 1"] * 3
    assert str(rows["the last 12 pixels alone"].goal) == "value >= 1.9"
    reached = [row for name, row in rows.items() if name.endswith("in two layers")]
    assert [row.value for row in reached] == [1.0, 1.0] and all(row.met for row in reached)
    kept = [rows[f"kept for each of {count} layers"] for count in (2, 8)]
    assert [row.value for row in kept] == [32 * 32 * 4 / 1e3] * 2 and all(
        row.rival_value > 10 * row.value for row in kept
    )


def test_what_two_layers_reach_is_counted() -> None:
    share = sparse_transformer.share_reached
    assert share((Causal(),)) == (1.0, 1.0)
    near, far = factorised("strided", "alternate", HEADS, SIDE, CELLS)
    assert share((near,))[1] == pytest.approx(sum(min(i + 1, 23) for i in range(144)) / (144 * 145 / 2))
    for use in ("alternate", "merged", "heads"):
        assert share(factorised("strided", use, HEADS, SIDE, CELLS))[1] == 1.0
    assert share((near, far))[0] == pytest.approx(
        sum(min(i + 1, 12) + i // 12 + 1 for i in range(144)) / 2 / (144 * 145 / 2)
    )


def test_deep_stacks_are_what_the_member_makes() -> None:
    spec = Deep(depth=5).spec(5)
    assert len(spec.blocks[0].blocks) == 5 and type(spec.init).__name__ == "FanIn"


def test_blockbert_reaches_all_blocks_by_one_shifted_head() -> None:
    rows = run("blockbert")
    assert list(rows) == [blockbert.OWN, blockbert.SHIFTED, blockbert.ALL]
    finder = Finder(depth=3)
    reached = {name: blockbert.share_reached(pattern, finder) for name, pattern in blockbert.patterns(128).items()}
    assert reached == {blockbert.OWN: (0.25, 0.0), blockbert.SHIFTED: (0.25, 1.0), blockbert.ALL: (1.0, 1.0)}
    assert blockbert.share_reached(blockbert.patterns(128)[blockbert.SHIFTED], Finder(depth=2))[1] < 1.0
    assert torch.tensor([row.value for row in rows.values()]).isfinite().all()
