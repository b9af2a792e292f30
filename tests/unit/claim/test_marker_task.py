from dataclasses import replace

import pytest
import torch
from torch import nn

from formers import Attention, ConfigError, Decoder
from formers.claim.marker_task import HELD_OUT, QUESTION, TINY, Finder, Retrieval
from formers.output import Output

TASK = Retrieval(length=20, markers=4, nearest=8, fillers=3, rows=64, evaluated=4)


def test_one_marker_stands_far_from_the_question_that_asks_for_it() -> None:
    batch = TASK.batch(1)
    inputs, targets = batch["inputs"], batch["targets"]
    assert inputs.shape == (64, 20) and targets.shape == (64, 1) and inputs.max() < TASK.vocab == 8
    is_marker = (inputs >= 1) & (inputs <= 4)
    assert (is_marker.sum(1) == 1).all()
    assert torch.equal(inputs[is_marker], targets[:, 0])
    assert set(is_marker.nonzero()[:, 1].tolist()) == set(range(8, 19))
    assert set(targets[:, 0].tolist()) == {1, 2, 3, 4}
    assert torch.equal(batch["global"], (inputs == QUESTION).long())
    assert (inputs == QUESTION).nonzero()[:, 1].eq(0).all()
    assert TASK.size(batch) == (64 * 20, 64)


def test_a_step_always_draws_the_same_and_no_other_step_does() -> None:
    assert torch.equal(TASK.batch(7)["inputs"], TASK.batch(7)["inputs"])
    others = [TASK.batch(8), replace(TASK, seed=1).batch(7), replace(TASK, seed=HELD_OUT).batch(7)]
    assert not any(torch.equal(TASK.batch(7)["targets"], other["targets"]) for other in others)


class Oracle(nn.Module):
    """Finds the marker of every row but each `slip`th; reads the marks."""

    def __init__(self, slip: int) -> None:
        super().__init__()
        self.slip, self.seeds = slip, []

    def forward(self, tokens, *, marks, logits_at, seed, remember):
        self.seeds.append(seed)
        assert torch.equal(marks["global"] > 0, tokens == QUESTION)
        right = tokens.where(tokens <= TASK.markers, 0).amax(1)
        right[:: self.slip] = 0
        assert tokens[:, logits_at].shape == (64, 1)
        return Output(nn.functional.one_hot(right[:, None], TASK.vocab).double(), None, None, {})


@pytest.mark.parametrize(("slip", "accuracy"), [(4, 0.75), (64, 63 / 64)])
def test_accuracy_counts_markers_that_are_told(slip: int, accuracy: float) -> None:
    oracle = Oracle(slip)
    assert TASK.evaluate(oracle)["accuracy"] == pytest.approx(accuracy)
    assert oracle.seeds == [0, 1, 2, 3]
    assert TASK.chance == 0.25


def test_a_model_that_cannot_tell_is_refused() -> None:
    spec = TINY.spec(Attention(2))
    TINY.task.require(spec)
    with pytest.raises(ConfigError, match="an Encoder with vocab=33"):
        Retrieval().require(spec)
    with pytest.raises(ConfigError):
        TINY.task.require(Decoder("writes", 100, 16, spec.blocks))


def test_full_attention_learns_to_find() -> None:
    task, steps = replace(TINY.task, rows=32, fillers=1), []
    finder = Finder(task, dim=32, hidden=32, steps=150, rate=1e-2)
    model = finder.learn(Attention(2), lambda: steps.append(1))
    assert finder.accuracy(model) > 0.9 and len(steps) == 150
    assert not model.training
