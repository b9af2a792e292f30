import io
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from formers import bench
from formers.bench.cases import content
from formers.bench.cases.content import FULL, TINY
from formers.bench.lesson import Plain, lesson, ours
from formers.bench.registry import Rival

RIVALS = (content.REFORMER_PYTORCH, content.SINKHORN, content.ROUTING)


def test_every_figure_is_there_without_the_packages(monkeypatch) -> None:
    monkeypatch.setattr(Rival, "installed", property(lambda self: self.package is None))
    console = Console(file=io.StringIO(), width=240)
    rows = bench.run("content", console=console, quick=True)
    assert all(row.value > 0 for row in rows)
    assert {row.goal is not None and str(row.goal) for row in rows} >= {
        "ratio >= 3", "ratio >= 12", "ratio >= 6", "ratio >= 2", "ratio >= 1.3", "value <= 1.3",
    }  # fmt: skip
    assert all((row.ratio is not None) == (row.rival == content.SDPA.name) for row in rows)
    assert "not measured: pip install 'formers[rivals-content]'" in console.file.getvalue()
    assert "not measured: pip install transformers" in console.file.getvalue()


def test_the_shapes_are_those_of_the_goals() -> None:
    assert (FULL.length, FULL.dim, FULL.heads, FULL.chunk, FULL.rounds) == (16_384, 512, 8, 64, 4)
    select = content.hashing(FULL).select
    assert (select.chunk, select.rounds) == (64, 4)


@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.package)
def test_rivals_that_are_installed_run(rival) -> None:
    if not rival.installed:
        pytest.skip(f"{rival.package} is optional")
    rows = bench.run("content", console=Console(file=io.StringIO()), quick=True)
    assert all(row.ratio > 0 for row in rows if row.rival == rival.name)


def test_plain_attention_is_causal_attention() -> None:
    shape = replace(TINY, length=6)
    plain = Plain(shape)
    x = torch.randn(1, 6, shape.dim)
    y = plain(x)
    torch.testing.assert_close(plain(x[:, :3]), y[:, :3])
    first = plain.out(plain.v(x[:, :1]))  # sees itself alone
    torch.testing.assert_close(y[:, :1], first)


def test_a_lesson_reaches_every_parameter() -> None:
    shape = replace(TINY, length=8)
    plain = Plain(shape)
    lesson(plain, shape)()
    assert all(parameter.grad.abs().sum() > 0 for parameter in plain.parameters() if parameter is not plain.k.bias)
    ours(content.routed(TINY, local=1, balanced=False), TINY)()
