import pytest
import torch
from tiny_task import TEXT, tiny

from formers.data.tokenizer import ByteTokenizer
from formers.errors import DataError
from formers.tasks import Masked, prepare
from formers.tasks.masked import SPECIAL
from formers.train import AdamW, Constant, TrainSpec, train
from formers.train.metrics import read_metrics

SPEC = TrainSpec(steps=10, batch=4, length=20)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare([TEXT], tmp_path_factory.mktemp("prepared"), special=SPECIAL)


@pytest.fixture(scope="module")
def model(prepared):
    return tiny("bert", prepared.tokenizer.vocab, length=32).eval()


def test_fifteen_percent_are_chosen_and_the_rest_is_shown_as_it_is(prepared):
    batch = Masked(prepared, SPEC).batch(1)
    chosen = batch["chosen"]
    assert batch["inputs"].shape == (4, 20)
    assert chosen.sum(1).tolist() == [3, 3, 3, 3]
    assert torch.equal(batch["inputs"][~chosen], batch["truth"][~chosen])
    assert Masked(prepared, SPEC).size(batch) == (80, 12)


def test_a_batch_is_a_function_of_its_step(prepared):
    one, other = Masked(prepared, SPEC), Masked(prepared, SPEC)
    assert torch.equal(one.batch(7)["inputs"], other.batch(7)["inputs"])
    assert not torch.equal(one.batch(7)["chosen"], one.batch(8)["chosen"])


def test_the_loss_is_at_the_chosen_tokens(prepared, model):
    task = Masked(prepared, SPEC)
    batch = task.batch(1)
    with torch.no_grad():
        log_probs = model(batch["inputs"]).logits.log_softmax(-1)
        expected = -log_probs.gather(-1, batch["truth"][..., None])[..., 0][batch["chosen"]].sum()
        torch.testing.assert_close(task.loss(model, batch).nats, expected)


def test_evaluations_hide_the_same_tokens_whatever_the_seed(prepared, model):
    found = Masked(prepared, SPEC).evaluate(model)
    assert found == Masked(prepared, SPEC.replace(seed=5)).evaluate(model)
    assert 0 <= found["accuracy"] <= 1
    assert found["tokens"] == pytest.approx(0.15 * len(prepared.held_out), rel=0.1)
    assert Masked(prepared, SPEC).evaluate(model, 60)["tokens"] == pytest.approx(9, abs=2)


def test_a_tokenizer_without_a_mask_is_refused(tmp_path):
    with pytest.raises(DataError, match="no id that hides a token"):
        Masked(prepare([TEXT], tmp_path, tokenizer=ByteTokenizer()), SPEC)


def test_it_trains(prepared, tmp_path, quiet):
    spec = SPEC.replace(steps=30, batch=16, optimizer=AdamW(learning_rate=1e-2), schedule=Constant(5), accumulation=2)
    model = tiny("bert", prepared.tokenizer.vocab, length=32)
    outcome = train(model, Masked(prepared, spec), spec, tmp_path / "run", console=quiet)
    losses = [row["loss"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "train"]
    assert losses[0] > 5.4 and losses[-1] < 3.4
    assert outcome.held_out["nats"] < 3.6
