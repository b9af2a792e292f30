"""The bench of sparse decoding: what a token of a model reads, and a row for each model of the paper's table."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from formers import make
from formers.bench.cases import beyond_memory
from formers.bench.cases.beyond_memory import bytes_of, depth_beyond, outlined
from formers.bench.cases.scaling import LARGE, MEDIUM, ROWS, TINY
from formers.bench.native import touched
from formers.bench.registry import BENCHES
from formers.bench.runner import run_suite
from formers.family.equal import size
from formers.native.engine.library import missing
from formers.report.rows import Row


def quickly(**how: Any) -> list[Row]:
    """The suite with its smallest models."""
    return run_suite(BENCHES, "decode", console=Console(file=io.StringIO()), quick=True, **how)


SMALL = {"vocab": 40, "dim": 32, "depth": 2, "heads": 4, "hidden": 64, "positions": "sinusoidal", "dropout": 0.0}


def test_a_token_of_a_dense_model_reads_all_but_the_embedding() -> None:
    spec = make("scaling_transformer", **SMALL, sparse=())
    assert touched(spec) == size(spec) - 39 * 32  # one row of the embedding


def test_a_token_of_a_sparse_feed_forward_reads_the_controller_and_the_active_units() -> None:
    given = SMALL | {"sparse": ("feed_forward",), "block": 8, "rank": 4}
    spec = make("scaling_transformer", **given)
    dense_units = 2 * 64 * 32
    assert size(spec) - touched(spec) == 39 * 32 + 2 * (dense_units - dense_units // 8)


@pytest.mark.parametrize(("known", "times"), [(MEDIUM, 15), (LARGE, 65)])
def test_by_bytes_the_goals_can_be_reached(known, times: float) -> None:
    dense, sparse = (touched(known.spec(row, known.depth)) for row in ("dense", "+ sparse loss"))
    assert dense / sparse > times > known.goals["+ sparse loss"]


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_every_row_of_the_table_is_measured(tmp_path: Path) -> None:
    rows = {row.name: row for row in quickly(folder=tmp_path)}
    for name in list(ROWS)[1:]:
        assert rows[f"small, {name}"].ratio > 0
    assert rows["small, a block, both sparse"].better == "lower"
    assert [rows[f"{streams} streams, all sparse"].value > 0 for streams in (4, 8, 16)] == [True] * 3
    assert rows["small, + sparse loss, one core busy"].ratio > 0
    (from_file,) = [row for name, row in rows.items() if name.endswith("in a file")]
    assert from_file.value > 0 and rows["the same: memory of the process"].value > 0
    assert not list(tmp_path.iterdir())


def test_as_many_blocks_as_memory_does_not_hold() -> None:
    memory = 3 * bytes_of(outlined(TINY, 1))
    depth = depth_beyond(TINY, memory)
    assert bytes_of(outlined(TINY, depth - 1)) < memory <= bytes_of(outlined(TINY, depth))


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_disk_without_room_is_said_and_nothing_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beyond_memory.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    (row,) = quickly(only="larger than memory", folder=tmp_path)
    assert row.value is None and "run this in a folder on a larger disk" in row.note
    assert not list(tmp_path.iterdir())
