import math

import pytest
import torch
from tiny_task import TEXT, tiny
from torch.nn import functional as F

from formers import make
from formers.data.tokens import write_text
from formers.sparse import usage
from formers.tasks import Causal, evaluate_text, prepare
from formers.train import TrainSpec

SPEC = TrainSpec(steps=10, batch=4, length=16)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare([TEXT], tmp_path_factory.mktemp("prepared"), held_out=0.1)


@pytest.fixture(scope="module")
def model(prepared):
    return tiny("gpt2", prepared.tokenizer.vocab, length=32).eval()


def test_the_target_of_a_token_is_the_one_behind_it(prepared):
    batch = Causal(prepared, SPEC).batch(1)
    assert batch["inputs"].shape == batch["targets"].shape == (4, 16)
    assert torch.equal(batch["inputs"][:, 1:], batch["targets"][:, :-1])


def test_a_batch_is_a_function_of_its_step(prepared):
    one, other = Causal(prepared, SPEC), Causal(prepared, SPEC)
    forward = [one.batch(step)["inputs"] for step in (1, 2, 3)]
    backward = [other.batch(step)["inputs"] for step in (3, 2, 1)]
    assert all(map(torch.equal, forward, reversed(backward)))
    assert not torch.equal(forward[0], forward[1])
    assert not torch.equal(forward[0], Causal(prepared, SPEC.replace(seed=1)).batch(1)["inputs"])


def test_the_loss_is_the_summed_cross_entropy(prepared, model):
    task = Causal(prepared, SPEC.replace(label_smoothing=0.1))
    batch = task.batch(1)
    logits = model(batch["inputs"]).logits.flatten(0, 1)
    expected = F.cross_entropy(logits, batch["targets"].flatten(), reduction="sum", label_smoothing=0.1)
    torch.testing.assert_close(task.loss(model, batch).nats, expected)
    assert task.size(batch) == (64, 64)


def nats_by_hand(model, tokens, length, start):
    """Each token predicted from those before it in its window, one window at a time."""
    stream, total = [start, *tokens], 0.0
    for first in range(0, len(stream) - 1, length):
        window = torch.tensor(stream[first : first + length + 1])[None]
        with torch.no_grad():
            total += F.cross_entropy(model(window[:, :-1]).logits[0], window[0, 1:], reduction="sum").item()
    return total


def test_units_of_sparse_layers_are_counted_once_for_each_token(prepared, model):
    vocab = prepared.tokenizer.vocab
    given = {"dim": 16, "depth": 2, "heads": 2, "hidden": 32, "block": 8, "rank": 4, "positions": "sinusoidal"}
    sparse = make("scaling_transformer", vocab=vocab, **given, sparse=("feed_forward",)).build().eval()
    found, tokens = evaluate_text(sparse, prepared.held_out, prepared.tokenizer, 16, 3), prepared.held_out.tokens
    counts, stream = 0, [prepared.tokenizer.end, *map(int, tokens)]
    for first in range(0, len(tokens), 16):
        window = torch.tensor(stream[first : first + 16])[None, : len(tokens) - first]
        with torch.no_grad():
            report = usage(sparse(window, remember=False).records)
        counts = counts + torch.cat([layer.counts for layer in report.values()])
    assert counts.sum() == len(tokens) * 2 * 4  # two layers of four blocks
    assert found["dead_units"] == pytest.approx((counts == 0).double().mean().item())
    assert 1 <= found["effective_units"] <= 8
    assert not {"dead_units", "effective_units"} & set(Causal(prepared, SPEC).evaluate(model))


def test_every_token_is_predicted_once_and_every_byte_counted(prepared, model):
    found = Causal(prepared, SPEC).evaluate(model)
    tokens = prepared.held_out.tokens.tolist()
    nats = nats_by_hand(model, tokens, 16, prepared.tokenizer.end)
    text_bytes = len(prepared.tokenizer.decode(tokens).encode())
    assert found["tokens"] == len(tokens) == text_bytes + 1
    assert found["bytes"] == text_bytes
    assert found["nats"] == pytest.approx(nats / len(tokens), rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / text_bytes, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(nats / len(tokens)), rel=1e-4)


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_the_batch_of_an_evaluation_does_not_matter(prepared, model, batch):
    expected = evaluate_text(model, prepared.held_out, prepared.tokenizer, 16, 4)
    found = evaluate_text(model, prepared.held_out, prepared.tokenizer, 16, batch)
    assert found == pytest.approx(expected, rel=1e-6)


def test_part_of_a_text_can_be_read_and_progress_is_told(prepared, model):
    told = []
    found = Causal(prepared, SPEC).evaluate(model, 100, told.append)
    assert (found["tokens"], found["bytes"]) == (100, 100)
    assert told == [0.5, 1.0]
    assert Causal(prepared, SPEC).evaluate(model, 10**9) == Causal(prepared, SPEC).evaluate(model)


def test_without_an_end_id_the_first_token_is_charged_as_a_blind_guess(tmp_path):
    prepared = prepare([TEXT], tmp_path, tokenizer="characters", special=())
    vocab = prepared.tokenizer.vocab
    model = tiny("gpt2", vocab, length=32).eval()
    found = Causal(prepared, SPEC).evaluate(model)
    tokens = prepared.held_out.tokens.tolist()
    nats = math.log(vocab) + nats_by_hand(model, tokens[1:], 16, tokens[0])
    assert found["nats"] * len(tokens) == pytest.approx(nats, rel=1e-5)


def test_a_model_that_knows_nothing_needs_log_vocab(prepared, tmp_path):
    text = write_text(tmp_path / "text", ["abc"], prepared.tokenizer)
    model = tiny("gpt2", 257, length=32).eval()
    torch.nn.init.zeros_(model.embedding.tokens.weight)
    found = evaluate_text(model, text, prepared.tokenizer, 16, 4)
    assert found["perplexity"] == pytest.approx(257, rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(4 * math.log2(257) / 3, rel=1e-5)
