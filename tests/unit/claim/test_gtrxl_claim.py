"""The claim on GTrXL, at its smallest, and the task that it learns."""

import io
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from formers import claim
from formers.claim.cases.gtrxl import GATED, POST, PRE, RULES, UNGATED, Setting
from formers.claim.cue_task import Cue
from formers.claim.recall_task import HELD_OUT
from formers.output import Output

TASK = Cue(length=6, rows=64, evaluated=2)


def test_the_first_token_is_the_cue_and_the_last_one_asks() -> None:
    batch = TASK.batch(1)
    torch.testing.assert_close(batch["inputs"][:, :1], batch["targets"])
    assert set(batch["targets"].flatten().tolist()) == {1, 2}
    assert not batch["inputs"][:, -1].any() and batch["inputs"][:, 1:-1].min() > 2
    assert TASK.chance == 0.5


def test_accuracy_counts_cues_that_are_told() -> None:
    def oracle(tokens: torch.Tensor, *, logits_at: slice, remember: bool) -> Output:
        told = torch.nn.functional.one_hot(tokens[:, :1], TASK.vocab).float()
        return Output(told, None, None, {}, None, {})

    def wrong(tokens: torch.Tensor, *, logits_at: slice, remember: bool) -> Output:
        return oracle(3 - tokens.clamp(max=3), logits_at=logits_at, remember=remember)

    assert TASK.evaluate(oracle)["accuracy"] == 1  # type: ignore[arg-type]
    assert TASK.evaluate(wrong)["accuracy"] == 0  # type: ignore[arg-type]
    assert not torch.equal(TASK.batch(0)["inputs"], replace(TASK, seed=HELD_OUT).batch(0)["inputs"])


def test_the_models_differ_in_how_sublayers_join_the_stream() -> None:
    specs = {name: Setting().spec(rule) for name, rule in RULES.items()}
    assert {spec.blocks[0].residual for spec in specs.values()} == set(RULES.values())
    assert [name for name, spec in specs.items() if spec.norm is not None] == [PRE]
    assert len({spec.replace(blocks=(), norm=None) for spec in specs.values()}) == 1


def test_rules_are_held_against_each_other() -> None:
    pytest.importorskip("gymnasium")
    rows = claim.run("gtrxl", console=Console(file=io.StringIO(), width=160), quick=True)
    solved, beyond, agent = rows[: len(RULES)], rows[len(RULES) : -1], rows[-1]
    assert [row.name for row in solved] == list(RULES)
    values = {row.name: row.value for row in solved}
    assert beyond[0].value == values[GATED] - values[UNGATED]
    assert beyond[1].value == values[GATED] - values[POST]
    assert [str(row.goal) for row in beyond] == ["value >= 0", "value >= 1", "value >= 1"]
    assert agent.value > 0 and agent.rival_value > 0
