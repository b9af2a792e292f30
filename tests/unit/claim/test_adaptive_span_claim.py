"""The claim on adaptive spans, at its smallest, and its task."""

import io
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import nn

from formers import Attention, ConfigError, Encoder, claim
from formers.claim.cases.adaptive_span import DYNAMIC, FIXED, FROM_ALL, FROM_NOTHING, KINDS, STRICT, ramp_ends
from formers.claim.distance_task import FAR, HELD_OUT, TINY, Distances
from formers.output import Output

TASK = Distances(symbols=6, near=2, far=9, length=20, rows=3, evaluated=3)


def test_tokens_ask_for_what_stands_near_and_some_for_what_stands_far() -> None:
    batch = TASK.batch(1)
    inputs, targets = batch["inputs"], batch["targets"]
    assert inputs.shape == (3, 20) and targets.shape == (3, 11) and TASK.size(batch) == (60, 33)
    for row in range(3):
        for place in range(9, 20):
            back = 9 if inputs[row, place] == FAR else 2
            assert targets[row, place - 9] == inputs[row, place - back]
    many = replace(TASK, rows=500).batch(2)["inputs"]
    assert (many == FAR).double().mean().item() == pytest.approx(0.15, abs=0.02) and many.max() == 5


def test_a_step_always_draws_the_same_and_no_other_step_does() -> None:
    assert torch.equal(TASK.batch(7)["inputs"], TASK.batch(7)["inputs"])
    for other in (TASK.batch(8), replace(TASK, seed=HELD_OUT).batch(7)):
        assert not torch.equal(TASK.batch(7)["inputs"], other["inputs"])


class Near(nn.Module):
    """Always tells the near token, whatever is asked for."""

    def forward(self, tokens, *, logits_at, remember):
        told = nn.functional.one_hot(tokens.roll(2, 1), 6).double()[:, logits_at]
        return Output(told, None, None, {}, None, {"spans 0.0": (torch.tensor([[60.0, 20, 5, 10]]),)})


def test_an_evaluation_tells_near_and_far_apart_and_the_spans() -> None:
    found = TASK.evaluate(Near())
    assert found["near"] == 1 and found["far"] < 0.6
    assert (found["mean_span"], found["saved_scores"]) == pytest.approx((3, 0.5))


def test_a_model_that_cannot_hold_the_symbols_is_refused() -> None:
    spec = TINY.spec(Attention(2))
    TINY.task.require(spec)
    with pytest.raises(ConfigError, match="a Decoder with vocab=6"):
        TASK.require(spec)
    with pytest.raises(ConfigError):
        TASK.require(Encoder("reads", 6, 8, spec.blocks))


def test_the_claim_compares_six_kinds_of_spans() -> None:
    rows = claim.run("adaptive_span", console=Console(file=io.StringIO(), width=160), quick=True)
    told = {row.name: row for row in rows}
    assert all(f"24 back, {name}" in told for name in KINDS)
    lost = told[f"24 back, what it loses: {DYNAMIC}"].value
    assert lost == pytest.approx(told[f"24 back, {FIXED}"].value - told[f"24 back, {DYNAMIC}"].value)
    spans = [told[f"mean span, {name}"].value for name in (FROM_ALL, STRICT)]
    assert told["what ten times the penalty takes off the span"].value == pytest.approx(spans[0] - spans[1])
    assert 55 < spans[0] <= 64 and told["furthest end of a ramp"].met
    assert f"mean span, {FIXED}" not in told and told[f"mean span, {FROM_NOTHING}"].goal is None
    assert {str(row.goal) for row in rows if "loses" in row.name} == {"value <= 0.02"}


def test_ramps_end_behind_the_spans_of_all_layers() -> None:
    model = TINY.spec(KINDS[FROM_NOTHING]).build()
    model.stack.blocks[1].sublayers[0].spans.shares.data[3] = 0.5
    assert ramp_ends(model) == [8] * 7 + [40]
    assert ramp_ends(TINY.spec(KINDS[DYNAMIC]).build()) == ramp_ends(TINY.spec(KINDS[FIXED]).build()) == []
