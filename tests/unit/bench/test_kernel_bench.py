"""The kernels suite runs, in shapes too small to mean anything, with the package and without it."""

import io

import pytest
from rich.console import Console

from formers.bench import BENCHES
from formers.bench.cases import kernels
from formers.bench.lesson import Shape
from formers.bench.registry import Rival
from formers.bench.runner import run_suite
from formers.report.rows import Row


def rows_of() -> list[Row]:
    return run_suite(BENCHES, "kernels", console=Console(file=io.StringIO(), width=160), quick=True)


def test_every_case_gives_its_rows_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rival, "installed", property(lambda self: self.package is None))
    rows = rows_of()
    assert all(row.value is not None and row.value > 0 for row in rows)
    named = {(row.name, row.rival): row for row in rows}
    for name in kernels.MAPS:
        assert named[f"{name}, causal, 80 tokens", kernels.SDPA.name].ratio is not None
    for kind in ("causal", "two-sided"):
        assert named[f"Performer, {kind}, 80 tokens", kernels.PACKAGE.name].note.startswith("not measured: pip install")
    for name in ("performer", "rfa", "rfa_gate"):
        for engine in ("native", "PyTorch"):
            assert str(named[f"{name}, {engine}: the later over the earlier", None].goal) == "value <= 1.1"


def test_a_rival_that_takes_more_memory_than_there_is_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "free_memory", lambda: 8 << 30)
    told = kernels.shortage(Shape())
    assert told is not None
    assert "about 24 GiB, and 8 are free" in told
    monkeypatch.setattr(kernels, "free_memory", lambda: 64 << 30)
    assert kernels.shortage(Shape()) is None
