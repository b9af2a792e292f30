"""The claims on ETC, at their smallest."""

import io
from dataclasses import replace
from itertools import islice

import pytest
import torch
from rich.console import Console

from formers import ConfigError, claim, make
from formers.claim.cases.etc import TINY, invented
from formers.claim.sentence_task import SUMMARY, Reader, Sentences, marks


def test_the_claims_are_told() -> None:
    rows = {row.name: row for row in claim.run("etc", console=Console(file=io.StringIO(), width=160), quick=True)}
    found = [row.value for name, row in rows.items() if name.startswith("which sentences")]
    assert rows["hard g2l mask above none"].value == pytest.approx(found[1] - found[0])
    assert {str(row.goal) for row in rows.values() if row.goal} == {
        "value >= 0.95",
        "value <= 0.35",
        "value >= 0.05",
        "value >= 0.3125",
        "value >= 0.1",
    }
    assert all(-1 <= row.value <= 1 for row in rows.values())


def test_the_marker_of_one_sentence_is_asked_for_at_all() -> None:
    task = Sentences(sentences=5, words=3, markers=4, holders=1, fillers=6, rows=8)
    batch = task.batch(1)
    long, own = batch["inputs"][:, 5:].unflatten(1, (5, 3)), batch["segment"][:, 5:].unflatten(1, (5, 3))
    held = (long > 0) & (long <= 4)
    assert held.flatten(1).sum(1).tolist() == [1] * 8
    assert torch.equal(long[held], batch["targets"][:, 0])
    assert (batch["targets"] == batch["targets"][:, :1]).all()
    assert (own == torch.arange(5)[:, None]).all() and (batch["inputs"][:, :5] == SUMMARY).all()
    alone = replace(task, summed_up=False).batch(1)
    assert torch.equal(alone["inputs"], batch["inputs"][:, 5:]) and not marks(alone)


def test_the_marker_of_half_of_the_sentences_is_asked_for_one_by_one() -> None:
    task = Sentences(sentences=6, words=3, markers=1, holders=3, anywhere=False, texts=32, rows=16)
    batch = task.batch(1)
    held = (batch["inputs"][:, 6:] == 1).unflatten(1, (6, 3)).any(-1)
    assert torch.equal(held.long(), batch["targets"])
    assert held.sum(1).tolist() == [3] * 16
    assert torch.equal(batch["inputs"], task.batch(3)["inputs"])
    assert not torch.equal(batch["inputs"], task.batch(2)["inputs"])


@pytest.mark.parametrize("summed_up", [True, False])
def test_answers_are_read_at_each_sentence(summed_up: bool) -> None:
    reader = replace(TINY, task=replace(TINY.task, summed_up=summed_up))
    model, batch = reader.learn((), lambda: None), reader.task.batch(0)
    assert batch["inputs"].shape[1] == reader.task.length
    logits = model(batch["inputs"], marks=marks(batch)).logits
    places = range(4) if summed_up else range(0, 16, 4)
    with torch.no_grad():
        wanted = torch.nn.functional.cross_entropy(logits[:, places].mT, batch["targets"], reduction="sum")
        torch.testing.assert_close(reader.task.loss(model, batch).nats, wanted)
    assert 0 <= reader.accuracy(model) <= 1


def test_without_global_tokens_nothing_comes_from_far_away() -> None:
    reader = Reader(Sentences(summed_up=False, rows=1))
    torch.manual_seed(0)
    model, batch = reader.spec(()).build().double().eval(), reader.task.batch(0)
    other = batch["inputs"].clone()
    other[:, 256:] = reader.task.batch(1)["inputs"][:, 256:]
    with torch.no_grad():
        before, after = (model(tokens).logits[0, :248] for tokens in (batch["inputs"], other))
    torch.testing.assert_close(before, after, rtol=0, atol=1e-12)


def test_invented_texts_have_letters_of_their_own() -> None:
    one, other = islice(invented(), 2)
    assert len(set(one) - set(". ")) == 3 and len(one.split()) == 8
    assert one != other and next(invented()) == one


def test_a_model_that_cannot_answer_is_refused() -> None:
    with pytest.raises(ConfigError, match="by an Encoder with vocab=33"):
        Sentences().require(make("gpt2"))
