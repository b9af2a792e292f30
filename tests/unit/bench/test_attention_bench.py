"""The attention suite runs, in shapes too small to mean anything: every case gives its rows, a picture and JSON."""

import io
import json
from pathlib import Path

from rich.console import Console

from formers.bench import BENCHES
from formers.bench.patterned import KINDS
from formers.bench.runner import run_suite


def test_every_case_gives_its_rows(tmp_path: Path) -> None:
    rows = run_suite(
        BENCHES,
        "attention",
        console=Console(file=io.StringIO(), width=160),
        quick=True,
        json=tmp_path / "rows.json",
        folder=tmp_path,
    )
    names = [row.name for row in rows]
    for kind in KINDS:
        assert any(name.startswith(f"{kind}, time over plain") for name in names)
    assert sum("peak memory at" in name for name in names) == 1
    assert sum("the later over the earlier" in name for name in names) == 4
    assert all(row.value is not None and row.value > 0 for row in rows)
    assert (tmp_path / "attention.png").read_bytes().startswith(b"\x89PNG")
    assert [row["name"] for row in json.loads((tmp_path / "rows.json").read_text())["rows"]] == names
