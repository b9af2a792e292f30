"""The rivals of decoding one stream: what is measured, and what is said where one cannot be."""

import io

import pytest
from rich.console import Console

from formers.bench.cases import decode_rivals
from formers.bench.registry import BENCHES
from formers.bench.runner import run_suite
from formers.report.rows import Row


def quickly(only: str) -> list[Row]:
    return run_suite(BENCHES, "decode", console=Console(file=io.StringIO()), quick=True, only=only)


def test_ctranslate2_writes_beside_ours() -> None:
    pytest.importorskip("ctranslate2")
    pytest.importorskip("transformers")
    rows = quickly("against CTranslate2")
    assert [row.name.rpartition(", ")[2] for row in rows] == ["fp32", "int8"]
    assert all(row.ratio > 0 for row in rows)


def test_without_a_compiler_the_reason_stands_in_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_rivals.shutil, "which", lambda _: None)
    (row,) = quickly("against PyTorch compiled")
    assert row.value > 0 and row.rival_value is None and "none of c++, g++, clang++" in row.note
