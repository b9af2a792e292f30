"""The bench of datastores, at its smallest."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from formers.bench.cases import datastore
from formers.bench.cases.datastore import Drawn, drawn, recall, search_drawn
from formers.bench.registry import BENCHES
from formers.bench.trial import Trial
from formers.claim.neighbour_task import Domain
from formers.data.tokenizer import ByteTokenizer
from formers.datastore import build
from formers.report.rows import Row


def rows_of(title: str, folder: Path) -> dict[str, Row]:
    (case,) = [case for case in BENCHES.find("memory") if title in case.title]
    return {row.name: row for row in case.measure(Trial(case, Console(file=io.StringIO()), quick=True, folder=folder))}


def test_drawn_keys_are_the_same_however_a_build_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datastore, "PIECE", 50)
    store = build(tmp_path / "s", Drawn(170, 8), ByteTokenizer())
    torch.testing.assert_close(store.keys(100, 150), drawn(50, 8, 100))
    assert store.values[:3].tolist() == [0, 1, 2]
    found = search_drawn(tmp_path / "s", None)
    assert found.rate > 0 and found.peak > 0 and found.entries is not None and found.entries.shape == (256, 32)


def test_recall_counts_what_was_wanted() -> None:
    wanted = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert recall(torch.tensor([[4, 9, 1, 0], [8, 7, 6, 5]]), wanted) == 0.75


def test_a_store_is_built_and_searched_in_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one process here, which is what a fresh one would do."""
    monkeypatch.setattr(datastore, "in_fresh_process", lambda run, *given: run(*given))
    rows = rows_of("10,000,000", tmp_path)
    assert rows["building 20,000 keys: most memory"].met is True
    assert rows["exact search: speed"].value > 0
    assert not (tmp_path / "datastore").exists()
    if datastore.FAISS.installed:
        assert 0.3 < rows["32 neighbours that it finds"].value <= 1


def test_the_price_of_approximation_stands_beside_exact_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = (np.arange(900) ** 2 % 96).astype(np.uint16)
    monkeypatch.setattr(datastore, "python_sources", lambda _: Domain(ids[:700], ids[700:]))
    rows = rows_of("what approximation costs", tmp_path)
    assert rows["exact, 599 keys"].value > 1 and rows["the model alone"].value > 1
    if datastore.FAISS.installed:
        assert rows["pq, 32 of 9 lists"].rival_value == rows["exact, 599 keys"].value
