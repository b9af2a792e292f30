"""The package task: what is drawn, what is held out, what the answers are worth; and the claims that stand on it."""

import io
from functools import cache
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from formers import Attention, ConfigError, DataError, claim, make
from formers.call import Call
from formers.claim.cases.linformer import attention_matrices, energy
from formers.claim.package_task import ASK, CHARACTERS, TINY, Packages, characters
from formers.output import Output
from formers.places import Places

TASK = Packages(packages=("email", "xml", "unittest"), window=40, labelled=30, rows=6, evaluated=3)


def text(row: torch.Tensor) -> str:
    return "".join(CHARACTERS[place] for place in row.tolist())


@cache
def whole(package: str, held_out: bool) -> str:
    return text(characters(package, held_out=held_out))


def test_windows_are_of_the_files_of_their_package() -> None:
    batch = TASK.batch(1)
    assert batch["inputs"].shape == (6, 41) and (batch["inputs"][:, 0] == ASK).all()
    assert TASK.size(batch) == (6 * 41, 6)
    for row, target in zip(batch["inputs"], batch["targets"][:, 0].tolist(), strict=True):
        for number, package in enumerate(TASK.packages):
            found = text(row[1:]) in whole(package, False)
            assert found or number != target
    assert torch.equal(TASK.batch(1)["inputs"], batch["inputs"])
    assert not torch.equal(TASK.batch(2)["inputs"], batch["inputs"])


def test_no_file_is_both_learned_from_and_held_out() -> None:
    for package in TASK.packages:
        learned, unseen = whole(package, False), whole(package, True)
        assert len(unseen) > 1000 and len(learned) > len(unseen)
        assert unseen[500:700] not in learned


class Known(nn.Module):
    """Tells the package of windows of held-out files, but for the first so many of each batch."""

    def __init__(self, wrong: int) -> None:
        super().__init__()
        self.wrong = wrong

    def forward(self, inputs: torch.Tensor, *, logits_at: Any, remember: bool) -> Output:
        assert logits_at == slice(0, 1)
        held = [whole(package, True) for package in TASK.packages]
        told = torch.tensor([next(n for n, whole in enumerate(held) if text(row[1:]) in whole) for row in inputs])
        told[: self.wrong] += 3
        return Output(nn.functional.one_hot(told, 9)[:, None].double(), None, None, {}, None)


@pytest.mark.parametrize(("wrong", "accuracy"), [(0, 1.0), (2, 4 / 6)])
def test_accuracy_is_that_of_held_out_files(wrong: int, accuracy: float) -> None:
    assert TASK.evaluate(Known(wrong))["accuracy"] == pytest.approx(accuracy, abs=0.06)


def test_what_cannot_learn_it_is_told() -> None:
    with pytest.raises(ConfigError, match="packages are told by an Encoder with vocab=97"):
        TASK.require(make("gpt2", vocab=200))
    with pytest.raises(DataError, match="came without the sources of nonsense"):
        characters("nonsense", held_out=False)


def test_the_rank_of_attention_is_that_of_its_matrices() -> None:
    torch.manual_seed(0)
    model = TINY.spec((Attention(4),)).build().eval()
    inputs = TINY.task.batch(0)["inputs"]
    matrices = attention_matrices(model, inputs)
    assert [tuple(m.shape) for m in matrices] == [(4, 4, 129, 129)] * TINY.depth
    torch.testing.assert_close(matrices[0].sum(-1), torch.ones(4, 4, 129))
    with torch.no_grad():
        first = model.stack.blocks[0]
        x = first.residual.norms[0](model.embedding(inputs, call_of(inputs)))
        v = first.sublayers[0].projection.keys_values(x)[1]
        given = first.sublayers[0].projection.output(matrices[0] @ v)
        torch.testing.assert_close(given, first.sublayers[0](x, call_of(inputs)).y)
        for name, parameter in model.named_parameters():
            if "q_proj" in name:
                parameter.zero_()
    assert energy(model, inputs) == pytest.approx(1.0)  # all tokens alike: of rank one


def call_of(inputs: torch.Tensor) -> Call:
    return Call(Places.run(0, inputs.shape[1]))


def run(name: str) -> list[Any]:
    return claim.run(name, console=Console(file=io.StringIO(), width=160), quick=True)


def test_linformer_is_held_against_attention_and_pooling() -> None:
    rows = run("linformer")
    assert [row.name for row in rows[:3]] == ["attention", "16 slots, learned", "16 slots, pooled"]
    assert all(0 <= row.value <= 1 and row.rival_value == pytest.approx(1 / 3) for row in rows[:3])
    assert [str(row.goal) for row in rows[3:]] == ["ratio >= 0.95", "ratio >= 0.95", "value >= 0.9"]
    assert [row.rival_value for row in rows[3:5]] == [rows[0].value, rows[2].value]
    assert rows[5].value == pytest.approx(1.0) and rows[5].rival_value == 1.0  # all 16 of 16


def test_fnet_is_held_against_attention_and_nothing() -> None:
    rows = run("fnet")
    assert [str(row.goal) for row in rows[3:]] == ["ratio >= 0.92", "value >= 0.1", "ratio >= 1"]
    assert rows[3].rival_value == rows[0].value and rows[4].value == pytest.approx(rows[1].value - rows[2].value)
    assert rows[5].value > 0 and rows[5].rival_value > 0
