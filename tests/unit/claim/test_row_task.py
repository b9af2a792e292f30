"""The row task: what is drawn, what is asked, and what the answers are worth."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from formers import Attention, Canvas, ConfigError, Encoder, make
from formers.claim.row_task import START, TINY, Rows
from formers.output import Output

TASK = Rows(rows=3, evaluated=2)
BLOCKED = replace(TASK, order=tuple(Canvas(12, 12, block=(4, 4)).tables().order.tolist()))


def test_each_row_of_the_second_half_follows_from_the_row_six_above() -> None:
    images = TASK.images(1)
    assert images.shape == (3, 12, 12) and set(images.unique().tolist()) == {0, 1, 2, 3}
    assert torch.equal(images[:, 6:], (images[:, :6] + 1) % 4)


@pytest.mark.parametrize("task", [TASK, BLOCKED], ids=["raster", "blocks"])
def test_the_second_half_is_asked_for_in_order(task: Rows) -> None:
    batch, pixels = task.batch(1), task.images(1).flatten(1)
    order = list(range(144)) if task.order is None else list(task.order)
    assert batch["inputs"].shape == (3, 144) and (batch["inputs"][:, 0] == START).all()
    assert batch["inputs"][:, 1:].tolist() == pixels[:, order[:-1]].tolist()
    lower = [place for place, number in enumerate(order) if number >= 72]
    assert batch["foretold"].nonzero()[:72, 1].tolist() == lower
    assert batch["targets"].tolist() == pixels[:, [order[place] for place in lower]].tolist()
    assert task.size(batch) == (3 * 144, 3 * 72)


class Known(nn.Module):
    """Gives the right colour a probability, and the others the rest of it."""

    def __init__(self, task: Rows, right: float) -> None:
        super().__init__()
        self.task, self.right = task, right

    def forward(self, inputs, *, logits_at, remember):
        unseen = replace(self.task, seed=-1)
        batch = next(b for b in map(unseen.batch, range(9)) if torch.equal(b["inputs"], inputs))
        logits = torch.full((batch["targets"].numel(), 4), (1 - self.right) / 3).log()
        return Output(logits.scatter(1, batch["targets"].view(-1, 1), math.log(self.right)), None, None, {}, None)


@pytest.mark.parametrize(("right", "bits"), [(0.25, 2.0), (0.5, 1.0)])
def test_bits_are_those_of_a_pixel(right: float, bits: float) -> None:
    assert BLOCKED.evaluate(Known(BLOCKED, right))["bits"] == pytest.approx(bits, abs=1e-5)


def test_several_kinds_of_attention_take_turns() -> None:
    one, two = Attention(2), Attention(4)
    spec = replace(TINY, depth=3).spec((one, two))
    assert [block.sublayers[0] for block in spec.blocks] == [one, two, one]


def test_a_tiny_learner_learns_and_is_measured() -> None:
    ticks = []
    model = TINY.learn(Attention(2), lambda: ticks.append(1))
    assert len(ticks) == TINY.steps and 0 < TINY.bits(model) < 20


def test_other_models_are_refused() -> None:
    with pytest.raises(ConfigError, match="told by a Decoder with vocab=4"):
        TASK.require(Encoder("e", 4, 8, ()))
    with pytest.raises(ConfigError, match="told by a Decoder with vocab=4"):
        TASK.require(make("gpt2", vocab=3))
