import io

import pytest
import torch
from rich.console import Console

from formers import bench
from formers.bench.cases import million, reversible
from formers.bench.registry import BENCHES
from formers.bench.trial import Trial
from formers.errors import DataError, FormersError


def run(name, **options):
    console = Console(file=io.StringIO(), width=200)
    rows = bench.run(name, console=console, quick=True, **options)
    return {row.name: row for row in rows}, console.file.getvalue()


def test_a_reversible_stack_is_measured_beside_an_ordinary_one() -> None:
    rows, _ = run("reversible")
    deep = rows["peak memory of 4 layers"]
    assert 0 < deep.value < deep.rival_value
    over = rows["peak memory of 4 layers over that of 2"]
    assert str(over.goal) == "value <= 1.3" and over.value < over.rival_value


def test_reversible_and_ordinary_stacks_have_the_same_blocks() -> None:
    both = [reversible.spec(reversible.TINY, 4, kind) for kind in (True, False)]
    assert both[0].blocks[0].blocks == both[1].blocks and len(both[1].blocks) == 4


def test_a_million_tokens_in_small(tmp_path) -> None:
    text = tmp_path / "text"
    text.write_bytes(bytes(range(256)) * 17)
    rows, printed = run("million", data=text)
    assert rows["loss before step 2"].value < rows["loss before step 1"].value
    assert str(rows["peak memory of the process"].goal) == "value <= 22"
    shares = [row.value for row in rows.values() if row.unit == "% of time"]
    assert len(shares) == 11 and sum(shares) == pytest.approx(100)
    (longest,) = (row for row in rows.values() if row.name.startswith("longest sequence"))
    assert longest.value == million.TINY.length and longest.rival_value > 0
    assert "step 2: " in printed


def test_without_a_file_the_standard_library_is_read() -> None:
    (case,) = BENCHES.find("million")
    text = million.read(Trial(case, Console(file=io.StringIO())), 5_000)
    assert text.shape == (1, 5_000) and text.dtype == torch.int64
    assert b"import " in bytes(text[0].tolist())


def test_a_file_that_is_too_short_is_refused(tmp_path) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"too little")
    with pytest.raises(DataError, match=r"10 bytes are too few; give --data a file of 4,097 or more"):
        run("million", data=text)


def test_too_little_memory_is_refused_before_anything_begins(monkeypatch) -> None:
    monkeypatch.setattr(million, "free_memory", lambda: 1 << 20)
    with pytest.raises(FormersError, match=r"takes 0\.1 GiB of memory, and 0\.0 GiB are free; end other programs"):
        run("million")
    monkeypatch.setattr(million, "free_memory", lambda: None)
    million.require_memory(1 << 60)


def test_the_full_shape_is_a_million_bytes_in_a_model_512_wide() -> None:
    spec = million.spec_of(million.FULL)
    assert million.FULL.length == spec.max_length == 1_048_576
    assert spec.dim == 512 and len(spec.blocks[0].blocks) == 6
    assert [kind for kind, _ in million.kinds_of(spec)] == ["local attention", "LSH attention"] * 3
    assert len(million.twin(million.FULL).blocks) == 6
