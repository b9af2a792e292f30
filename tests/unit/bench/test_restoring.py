"""Texts without capitals, as a task."""

from pathlib import Path

import pytest
import torch

from formers import make
from formers.bench.restoring import Restoring, small
from formers.errors import ConfigError
from formers.tasks import prepare
from formers.train import TrainSpec

TEXT = "The bee, it is said, sleeps. SO DOES (she says) A BEAR!\n" * 20
WIDTH = 8


def task(folder: Path) -> Restoring:
    return Restoring(prepare([TEXT], folder, held_out=0.1), WIDTH, TrainSpec(steps=1, batch=3, length=2 * WIDTH - 1))


def test_capitals_become_small_and_all_else_stays() -> None:
    text = "@Sim_2[É], AZaz!\n"
    texts = torch.tensor([[*list(text.encode()), 256]])
    assert bytes(small(texts)[0, :-1].tolist()).decode() == "@sim_2[É], azaz!\n"
    assert small(texts)[0, -1] == 256
    assert bytes(texts[0, :-1].tolist()).decode() == text  # the given ones stay as they are


def test_an_answer_is_foretold_behind_the_whole_text(tmp_path: Path) -> None:
    batch = task(tmp_path).batch(1)
    inputs, targets = batch["inputs"], batch["targets"]
    assert inputs.shape == (3, 2 * WIDTH - 1)
    torch.testing.assert_close(inputs[:, :WIDTH], small(targets))
    torch.testing.assert_close(inputs[:, WIDTH:], targets[:, :-1])
    assert bytes(targets[0].tolist()).decode() in TEXT


def test_only_the_answer_counts(tmp_path: Path) -> None:
    """What the model makes of the small letters themselves is no loss."""
    restoring = task(tmp_path)
    model = make("calm", vocab=257, dim=16, depth=2, heads=2, hidden=16).build().eval()
    batch = restoring.batch(1)
    assert restoring.size(batch) == (3 * (2 * WIDTH - 1), 3 * WIDTH)
    logits = model(batch["inputs"]).logits[:, WIDTH - 1 :]
    nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten(), reduction="sum")
    torch.testing.assert_close(restoring.loss(model, batch).nats, nats)


def test_accuracy_is_of_the_likeliest_bytes(tmp_path: Path) -> None:
    class Knows(torch.nn.Module):
        """Says the very letters that it was given."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def forward(self, inputs: torch.Tensor, **named: object) -> object:
            logits = torch.nn.functional.one_hot(inputs[:, :WIDTH], 257).double()
            return type("Out", (), {"logits": logits})

    restoring = task(tmp_path)
    found = restoring.evaluate(Knows())["accuracy"]
    held_out = restoring._prepared.held_out.tokens
    whole = torch.from_numpy(held_out[: len(held_out) // WIDTH * WIDTH].astype("int64"))
    assert 0 < found < 1
    assert found == pytest.approx((small(whole) == whole).double().mean().item())


def test_what_cannot_write_the_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="vocab=257"):
        task(tmp_path).require(make("calm", vocab=64, dim=16, depth=2, heads=2, hidden=16))
