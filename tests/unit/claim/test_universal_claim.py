"""The claims on the Universal Transformer at their smallest, and the pointers that they follow."""

import io

import pytest
import torch
from rich.console import Console

from formers import ACT, ConfigError, claim, make
from formers.claim.pointer_task import Pointers, by_hops
from formers.claim.pondering import SMALLEST

TASK = Pointers(size_of=5, hops=3, rows=6)


def test_answers_are_where_the_hops_end() -> None:
    batch = TASK.batch(1)
    for text, answer, hops in zip(
        batch["inputs"].tolist(), batch["targets"][:, 0].tolist(), batch["hops"].tolist(), strict=True
    ):
        *images, asked, place = text
        assert (sorted(images), asked) == ([0, 1, 2, 3, 4], 5 + hops - 1)
        for _ in range(hops):
            place = images[place]
        assert place == answer
    assert not torch.equal(TASK.batch(1)["inputs"], TASK.unseen(1)["inputs"])


def test_means_are_told_by_hops() -> None:
    assert by_hops(torch.tensor([1.0, 0.0, 1.0]), torch.tensor([1, 2, 1]), 2) == {1: 1.0, 2: 0.0}


def test_a_model_that_cannot_tell_them_is_refused() -> None:
    with pytest.raises(ConfigError, match="a Decoder with vocab=8"):
        TASK.require(make("gpt", vocab=5))


def test_teaching_begins_with_the_whole_model_and_its_steps_are_told() -> None:
    whole = SMALLEST.whole(lambda: None)
    taught = SMALLEST.taught(ACT(), whole, lambda: None)
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(dict(taught.named_parameters())[name], parameter, rtol=0, atol=0.05)
    steps, hops = SMALLEST.taken(taught)
    assert steps.shape == (16, SMALLEST.chaser.task.length)
    assert hops.shape == (16,)


def test_each_depth_and_each_price_of_a_step_has_its_rows() -> None:
    rows = claim.run("universal", console=Console(file=io.StringIO(), width=160), quick=True)
    goals = [(row.name.split(":")[0], str(row.goal)) for row in rows if row.goal is not None]
    assert goals == [
        ("one block, 6 steps", "value >= 0.9"),
        ("one block, 1 step", "value <= 0.5"),
        ("ponder 0.001", "ratio >= 0.99"),
        ("ponder 0.001", "value >= 0.3"),
        ("ponder 0.01", "ratio >= 0.99"),
        ("ponder 0.01", "value >= 0.3"),
        ("steps to a token at ponder 0.01", "ratio >= 1.05"),
    ]
    assert len(rows) == 8
    assert all(0 <= row.value <= 1 for row in rows[:-1])
