"""Products of generators: what is drawn, what is asked, what the answers are worth; and the claim, at its smallest."""

import io
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import nn

from formers import ConfigError, claim, make
from formers.claim.group_task import ELEMENTS, GENERATORS, TINY, Products, multiplication
from formers.output import Output

TASK = Products(length=9, rows=3, evaluated=2)


def test_the_group_has_all_of_its_elements() -> None:
    table, reached = multiplication(), {0}
    for _ in range(6):  # the longest way from one element to another
        reached |= {int(product) for element in reached for product in table[element]}
    assert len(reached) == len(ELEMENTS) == 24
    assert ELEMENTS[0] == (0, 1, 2, 3)


def test_targets_are_what_the_generators_do_one_after_another() -> None:
    batch = TASK.batch(1)
    for row in range(3):
        items = ["a", "b", "c", "d"]
        for number, target in zip(batch["inputs"][row].tolist(), batch["targets"][row].tolist(), strict=True):
            items = [items[place] for place in GENERATORS[number]]
            assert items == ["abcd"[place] for place in ELEMENTS[target]]


def test_the_order_of_generators_matters() -> None:
    table = multiplication()
    assert table[table[0, 0], 1] != table[table[0, 1], 0]


class Known(nn.Module):
    """Tells the product at the first places, and the one before it in the list at the others."""

    def forward(self, inputs, *, remember):
        unseen = replace(TASK, seed=-1)
        batch = next(b for b in map(unseen.batch, range(9)) if torch.equal(b["inputs"], inputs))
        told = torch.where(torch.arange(TASK.length) < 7, batch["targets"], batch["targets"] - 1) % len(ELEMENTS)
        return Output(nn.functional.one_hot(told, len(ELEMENTS)).double(), None, None, {}, None)


def test_accuracy_is_told_for_all_and_for_the_last_third() -> None:
    assert TASK.evaluate(Known()) == pytest.approx({"accuracy": 7 / 9, "last": 1 / 3})


def test_a_model_that_cannot_tell_them_is_refused() -> None:
    with pytest.raises(ConfigError, match="a Decoder with vocab=24"):
        TASK.require(make("gpt", vocab=5))


def test_feedback_is_held_against_plain_layers() -> None:
    rows = claim.run("feedback_transformer", console=Console(file=io.StringIO(), width=160), quick=True)
    names = [row.name for row in rows if row.goal is not None]
    assert names == ["feedback, 2 layers", "Transformer, 2 layers"]
    assert [str(row.goal) for row in rows if row.goal is not None] == ["value >= 0.9", "value <= 0.55"]
    assert all(0 <= row.value <= 1 and row.rival_value == TINY.task.chance for row in rows)
    assert len(rows) == 7
