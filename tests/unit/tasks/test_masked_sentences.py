"""Hidden tokens beside hidden sentences."""

import pytest
import torch
from tiny_task import tiny
from torch.nn import functional as F

from formers.errors import ConfigError, DataError
from formers.tasks import MaskedSentences, prepare
from formers.tasks.sentences import SHARE, SPECIAL
from formers.train import AdamW, Constant, TrainSpec, train
from formers.train.metrics import read_metrics

TEXT = "".join(
    f"{name} has {number} {what}. "
    for number in range(9)
    for name in ("Ann", "Bob")
    for what in ("hens", "cows", "eggs")
)
SPEC = TrainSpec(steps=10, batch=3, length=80)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare([TEXT], tmp_path_factory.mktemp("sentences"), special=SPECIAL, sentences=True)


@pytest.fixture(scope="module")
def model(prepared):
    return tiny("etc", prepared.tokenizer.vocab, radius=4, reach=3).eval()


def test_each_sentence_is_closed(prepared):
    text = prepared.tokenizer.decode(prepared.train.tokens[: 2 * len("Ann has 0 hens.") + 2].tolist())
    assert text == "Ann has 0 hens.Ann has 0 cows."
    assert (prepared.train.tokens == prepared.tokenizer.end).sum() > 45


def test_a_tenth_of_the_sentences_is_hidden_as_a_whole(prepared):
    task, mask_id = MaskedSentences(prepared, SPEC), prepared.tokenizer.mask
    batch = task.batch(1)
    segments = batch["segment"]
    assert batch["hidden"].shape[1] == 1  # of the five or six that fit into a row
    for row, number in enumerate(batch["hidden"][:, 0]):
        inside = (segments[row] == number) & (batch["global"][row] == 0)
        assert (batch["inputs"][row][inside] == mask_id).all()
        assert not batch["chosen"][row][inside].any()
        assert batch["global"][row, number] == 1 and segments[row, number] == number
        alone = batch["alone"][row, 0][batch["alone_mask"][row, 0]]
        assert alone[0] == prepared.tokenizer.start
        assert torch.equal(alone[1:], batch["truth"][row][inside])
    assert task.size(batch) == (int(batch["mask"].sum() + batch["alone_mask"].sum()), int(batch["chosen"].sum()))


def test_a_batch_is_a_function_of_its_step(prepared):
    one, other = (MaskedSentences(prepared, SPEC).batch(7) for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["truth"], MaskedSentences(prepared, SPEC).batch(8)["truth"])


def test_the_two_losses(prepared, model):
    """By one row, and one sentence, after the other."""
    task = MaskedSentences(prepared, SPEC)
    batch, nats, guessed, read = task.batch(2), 0.0, [], []
    with torch.no_grad():
        for row in range(3):
            real = batch["mask"][row]
            marks = {name: batch[name][row][real][None] for name in ("global", "segment")}
            out = model(batch["inputs"][row][real][None], marks=marks)
            chosen, truth = batch["chosen"][row][real], batch["truth"][row][real]
            nats += F.cross_entropy(out.logits[0][chosen], truth[chosen], reduction="sum")
            guessed.append(out.hidden[0, batch["hidden"][row, 0]])
            alone = batch["alone"][row, 0][batch["alone_mask"][row, 0]][None]
            marks = {"global": F.one_hot(torch.tensor([0]), alone.shape[1]), "segment": torch.zeros_like(alone)}
            read.append(model(alone, marks=marks).hidden[0, 0])
        scores = torch.stack(guessed) @ torch.stack(read).T / guessed[0].shape[0] ** 0.5
        loss = task.loss(model, batch)
    torch.testing.assert_close(loss.nats, nats)
    torch.testing.assert_close(loss.named["cpc"], SHARE * F.cross_entropy(scores, torch.arange(3)))


def test_both_sides_of_the_contrast_are_learned_from(prepared, model):
    task = MaskedSentences(prepared, SPEC)
    batch = task.batch(1)
    batch["alone"][:, 0, 1] = 7  # a symbol that no row shows
    assert not (batch["inputs"] == 7).any()
    task.loss(model, batch).named["cpc"].backward()
    assert model.embedding.tokens.weight.grad[7].any()
    model.zero_grad()


def test_a_row_of_one_sentence_hides_none(prepared, model):
    task = MaskedSentences(prepared, SPEC.replace(length=6))
    batch = next(batch for batch in map(task.batch, range(1, 99)) if (batch["hidden"] < 0).all())
    loss = task.loss(model, batch)
    assert loss.named["cpc"] == 0
    assert loss.nats.isfinite()


def test_evaluations_hide_the_same_whatever_the_seed(prepared, model):
    found = MaskedSentences(prepared, SPEC).evaluate(model)
    assert found == MaskedSentences(prepared, SPEC.replace(seed=5)).evaluate(model)
    assert set(found) >= {"nats", "perplexity", "accuracy", "cpc", "retrieval"}
    assert 0 <= found["retrieval"] <= 1


def test_it_trains(prepared, tmp_path, quiet):
    spec = SPEC.replace(steps=25, batch=6, optimizer=AdamW(learning_rate=1e-2), schedule=Constant(5), accumulation=2)
    model = tiny("etc", prepared.tokenizer.vocab, radius=4, reach=3)
    outcome = train(model, MaskedSentences(prepared, spec), spec, tmp_path / "run", console=quiet)
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "train"]
    assert rows[0]["loss"] > 5.4 and rows[-1]["loss"] < 3.4
    assert rows[0]["losses"]["cpc"] > 0
    assert outcome.held_out["nats"] < 3.6


def test_what_cannot_be_learned_is_told(prepared, tmp_path):
    with pytest.raises(DataError, match="the tokenizer has no id for mask, start; prepare the text with special="):
        MaskedSentences(prepare([TEXT], tmp_path, sentences=True), SPEC)
    with pytest.raises(ConfigError, match="use loss_chunk=none"):
        MaskedSentences(prepared, SPEC.replace(loss_chunk=8))
    with pytest.raises(ConfigError, match="no global input to sum up sentences"):
        MaskedSentences(prepared, SPEC).require(tiny("bert", prepared.tokenizer.vocab, length=80).spec)
