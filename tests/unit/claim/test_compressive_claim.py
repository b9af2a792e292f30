"""The claim on compressed memory, at its smallest."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console
from torch import nn

from formers import claim
from formers.claim.cases.compressive import RECALLER, attentions, strays
from formers.spec import Site


def test_it_is_held_against_as_many_slots_of_plain_memory() -> None:
    rows = claim.run("compressive_transformer", console=Console(file=io.StringIO(), width=160), quick=True)
    told = [row for row in rows if row.unit == "accuracy"]
    assert [row.name for row in told] == list(attentions(8)) and len(told) == 6
    assert [str(row.goal) for row in told] == ["value <= 0.2"] + 5 * ["value >= 0.95"]
    assert all(0 <= row.value <= 1 and row.rival_value == pytest.approx(1 / 3) for row in told)
    strayed = [row for row in rows if row.unit == "parameters"]
    assert [(row.value, str(row.goal)) for row in strayed] == [(0, "value <= 0")] * 2


def test_parameters_that_the_loss_should_not_move_are_counted() -> None:
    model = nn.ModuleDict({"attention": nn.ModuleDict({"memory": nn.Linear(2, 2), "other": nn.Linear(2, 3)})})

    def loss(model: nn.Module, batch: object) -> SimpleNamespace:
        parts = model["attention"]
        return SimpleNamespace(named={"compression": parts["memory"].bias.sum() + parts["other"].weight[0].sum()})

    task = SimpleNamespace(batch=lambda step: None, loss=loss)
    assert strays(model, SimpleNamespace(task=task)) == 2


def test_plain_memory_cannot_reach_the_marker_and_compressed_memory_can() -> None:
    task = RECALLER.task
    plain, *compressed = attentions(task.segment).values()
    assert plain.pattern_at(Site(48, causal=True)).horizon <= task.length - task.segment
    for each in compressed:
        memory = each.memory
        assert memory.memory + memory.compressed == plain.pattern.right.memory
        assert memory.memory + memory.compressed * memory.compression.rate >= task.length - task.segment
