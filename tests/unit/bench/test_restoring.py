"""Damaged texts, as a task."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from formers import make
from formers.bench.restoring import ASKED, HELD_OUT, UNREADABLE, Damaged, Restoring, damage, texts_of
from formers.errors import ConfigError
from formers.tasks import Prepared, prepare
from formers.train import TrainSpec

TEXT = "The bee, it is said, sleeps. SO DOES (she says) A BEAR!\n" * 100
WIDTH = 8
SMALL = {"dim": 16, "depth": 2, "heads": 2, "hidden": 16}


def prepared(folder: Path) -> Prepared:
    return prepare([TEXT], folder, held_out=0.1)


def task(folder: Path) -> Restoring:
    return Restoring(prepared(folder), WIDTH, TrainSpec(steps=1, batch=3, length=2 * WIDTH - 1))


def test_a_share_is_unreadable_and_all_else_stays() -> None:
    whole = torch.full((100, 100), ord("a"))
    texts = damage(whole, 0.1, 3, 1)
    assert 0.08 < texts.unreadable.double().mean() < 0.12
    assert (texts.given[~texts.unreadable] == ord("a")).all()
    assert (texts.whole == ord("a")).all()
    assert (damage(whole, 0.1, 3, 1).given == texts.given).all()
    assert (damage(whole, 0.1, 3, 2).given != texts.given).any()


def test_a_whole_text_is_foretold_behind_all_of_the_damaged_one(tmp_path: Path) -> None:
    batch = task(tmp_path).batch(1)
    inputs, targets = batch["inputs"], batch["targets"]
    assert inputs.shape == (3, 2 * WIDTH - 1)
    given = inputs[:, :WIDTH]
    assert ((given == targets) | (given == UNREADABLE)).all()
    torch.testing.assert_close(inputs[:, WIDTH:], targets[:, :-1])
    assert bytes(targets[0].tolist()).decode() in TEXT


def test_only_the_whole_text_counts(tmp_path: Path) -> None:
    """What the model makes of the damaged text itself is no loss."""
    restoring = task(tmp_path)
    model = make("calm", vocab=257, **SMALL).build().eval()
    batch = restoring.batch(1)
    assert restoring.size(batch) == (3 * (2 * WIDTH - 1), 3 * WIDTH)
    logits = model(batch["inputs"]).logits[:, WIDTH - 1 :]
    nats = F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten(), reduction="sum")
    torch.testing.assert_close(restoring.loss(model, batch).nats, nats)


def test_accuracy_is_of_unreadable_bytes(tmp_path: Path) -> None:
    class Spaces(torch.nn.Module):
        """Copies what can be read, and says a space for what cannot."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def forward(self, inputs: torch.Tensor, **named: object) -> object:
            given = inputs[:, :WIDTH]
            logits = F.one_hot(torch.where(given == UNREADABLE, ord(" "), given), 257)
            return type("Out", (), {"logits": logits})

    text = prepared(tmp_path)
    held_out: Damaged = damage(texts_of(text.held_out.tokens, WIDTH), ASKED, HELD_OUT)
    expected = (held_out.whole[held_out.unreadable] == ord(" ")).double().mean().item()
    assert 0 < expected < 1
    assert task(tmp_path).evaluate(Spaces()) == {"accuracy": pytest.approx(expected)}


def test_what_cannot_write_the_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="vocab=257"):
        task(tmp_path).require(make("calm", vocab=64, **SMALL))
