import io

import pytest
from rich.console import Console

from formers import bench
from formers.bench import gpt2
from formers.bench.gpt2 import TINY, require_equal, twins
from formers.bench.native import require_length
from formers.errors import FormersError

transformers_missing = not gpt2.HUGGING_FACE.installed


def beside_transformers(rows: list) -> list:
    """Those whose rival is transformers': a suite has others too."""
    return [row for row in rows if row.rival == gpt2.HUGGING_FACE.name]


@pytest.mark.parametrize("name", ["train", "decode"])
def test_cases_run_at_their_smallest_without_the_rival(name, monkeypatch) -> None:
    monkeypatch.setattr(gpt2.HUGGING_FACE.__class__, "installed", property(lambda self: False))
    console = Console(file=io.StringIO(), width=160)
    rows = beside_transformers(bench.run(name, console=console, quick=True))
    assert all(row.value > 0 and row.ratio is None and row.met is None for row in rows)
    assert "not measured: pip install transformers" in console.file.getvalue()


@pytest.mark.skipif(transformers_missing, reason="transformers is optional")
@pytest.mark.parametrize("name", ["train", "decode"])
def test_cases_run_at_their_smallest_beside_the_rival(name) -> None:
    rows = beside_transformers(bench.run(name, console=Console(file=io.StringIO()), quick=True))
    assert rows and all(row.ratio > 0 for row in rows)
    assert [row.met is None for row in rows] == [row.goal is None for row in rows]


@pytest.mark.skipif(transformers_missing, reason="transformers is optional")
def test_twins_have_the_same_weights_and_unequal_ones_are_refused() -> None:
    ours, rival = twins(TINY[0])
    other = twins(gpt2.Shape(vocab=40, dim=16, depth=2, heads=2, length=48))[0]
    with pytest.raises(FormersError, match="not one model"):
        require_equal(other, rival, TINY[0])
    ours.norm.weight.data.mul_(2.0)
    with pytest.raises(FormersError, match=r"logits .* apart"):
        require_equal(ours, rival, TINY[0])


def test_a_run_that_stopped_early_is_not_timed() -> None:
    require_length(4, 4)
    with pytest.raises(FormersError, match="3 tokens were written where 4 are timed"):
        require_length(3, 4)
