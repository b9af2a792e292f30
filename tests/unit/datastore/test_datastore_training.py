"""Neighbours beside the data: each place brings its own along, in training and in evaluation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from stored import LENGTH, OVERLAP, TOKENIZER, small_model, store_of, text_of

from formers import LayerNorm, RetrievalGate, make
from formers.data.tokens import write_text
from formers.datastore import Datastore, exact, search_of
from formers.datastore.training import (
    PreparedNeighbours,
    Retrieved,
    RetrievedStreams,
    evaluate_retrieved,
    found_in,
    prepare_neighbours,
    reads_neighbours,
    retrieved_task,
    with_neighbours,
)
from formers.errors import DataError
from formers.tasks import Prepared, evaluate_text
from formers.train import TrainSpec, train

WORDS = ["a rose is a rose is a rose", "so it goes, and so it goes", "call me a rose, or call me not"] * 3
SPEC = TrainSpec(steps=3, batch=2, length=8, evaluate_every=3, checkpoint_every=3)


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedNeighbours:
    model = small_model()
    train, held_out = (
        write_text(tmp_path / "train.tokens", WORDS, TOKENIZER),
        write_text(tmp_path / "held.tokens", ["so a rose goes"], TOKENIZER),
    )
    store = store_of(tmp_path / "s", model, train.tokens)
    plain = Prepared(TOKENIZER, train, held_out, {"train": "x"})
    return prepare_neighbours(plain, tmp_path, store, model, search_of(store), k=3)


def test_what_is_found_is_what_followed_the_nearest_contexts(tmp_path: Path, prepared: PreparedNeighbours) -> None:
    store = Datastore(tmp_path / "s")
    own = torch.arange(store.count)
    wanted = exact(store, store.keys(0, store.count), 3, own).tokens(store.values)
    np.testing.assert_array_equal(prepared.train_found, wanted.numpy())
    assert prepared.held_out_found.shape == (len(prepared.held_out), 3)
    assert (prepared.train_found[: len(WORDS[0])] >= 0).all()
    again = with_neighbours(replace_plain(prepared), tmp_path)
    np.testing.assert_array_equal(again.train_found, prepared.train_found)
    assert set(again.fingerprints) == {"train", "train.neighbours", "held_out.neighbours"}


def replace_plain(prepared: PreparedNeighbours) -> Prepared:
    return Prepared(prepared.tokenizer, prepared.train, prepared.held_out, {"train": "x"})


def test_each_place_of_a_batch_brings_its_neighbours(prepared: PreparedNeighbours) -> None:
    task = Retrieved(prepared, SPEC)
    text = prepared.train.tokens
    for step in (1, 2):
        batch = task.batch(step)
        for row in range(2):
            window = batch["inputs"][row].tolist() + batch["targets"][row, -1:].tolist()
            fits = [s for s in range(len(text) - 8) if text[s : s + 9].tolist() == window]
            wanted = [prepared.train_found[s + 1 : s + 9].tolist() for s in fits]
            assert batch["retrieved"][row].tolist() in wanted


def spalm(**changes: object) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"vocab": 257, "dim": 16, "depth": 2, "heads": 2, "hidden": 24, "segment": 8, "memory": 8, "dropout": 0.0}
    model = make("spalm", **sizes | changes).build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_evaluation_gives_each_token_its_neighbours(prepared: PreparedNeighbours) -> None:
    model, text = spalm(), prepared.held_out
    found = prepared.held_out_found
    inputs = torch.tensor([[TOKENIZER.end, *text.tokens[:-1].tolist()]])
    targets = torch.from_numpy(text.tokens.astype(np.int64))
    out = model(inputs, retrieved=torch.from_numpy(found.astype(np.int64))[None])
    wanted = torch.nn.functional.cross_entropy(out.logits[0], targets)
    figures = evaluate_retrieved(model, text, found, TOKENIZER, 64, 1)
    assert figures["nats"] == pytest.approx(wanted.item(), rel=1e-5)
    assert figures["gate"] == pytest.approx(out.records["gate"][0].mean().item(), rel=1e-5)
    nothing = np.full_like(found, -1)
    for length in (4, 64):
        alone = evaluate_text(model, text, TOKENIZER, length, 2)
        same = evaluate_retrieved(model, text, nothing, TOKENIZER, length, 2)
        assert same["nats"] == pytest.approx(alone["nats"], rel=1e-6)
        assert same["bits_per_byte"] == pytest.approx(alone["bits_per_byte"], rel=1e-6)


@pytest.mark.parametrize("member", ["spalm", "gpt2"])
def test_the_gate_learns(tmp_path: Path, prepared: PreparedNeighbours, member: str) -> None:
    """From streams where the trunk carries a state, and from windows where it does not."""
    model = spalm()
    if member == "gpt2":
        plain = small_model().spec
        model = plain.replace(blocks=(*plain.blocks, RetrievalGate(LayerNorm())), norm=None).build()
    task = retrieved_task(prepared, SPEC, model.spec)
    assert isinstance(task, RetrievedStreams) == (member == "spalm")
    before = model.stack.blocks[-1].gate.weight.detach().clone()
    outcome = train(model, task, SPEC, tmp_path / "run", tokenizer=TOKENIZER)
    assert not torch.equal(model.stack.blocks[-1].gate.weight, before)
    assert 0 < outcome.held_out["gate"] < 1


def test_neighbours_of_other_data_are_refused(tmp_path: Path, prepared: PreparedNeighbours) -> None:
    other = replace(replace_plain(prepared), train=prepared.held_out)
    with pytest.raises(DataError, match="prepare the data again"):
        with_neighbours(other, tmp_path)
    with pytest.raises(DataError, match="other weights"):
        store = Datastore(tmp_path / "s")
        prepare_neighbours(other, tmp_path, store, small_model(seed=4), search_of(store), k=3)


def test_only_a_gate_reads_neighbours() -> None:
    assert reads_neighbours(make("spalm", vocab=40, dim=16, depth=1, heads=2, hidden=8))
    assert not reads_neighbours(make("gpt2", vocab=40, dim=16, depth=1, heads=2, hidden=8))


def test_every_token_of_a_text_without_an_end_has_a_row(tmp_path: Path) -> None:
    from formers.data.tokenizer import ByteTokenizer
    from formers.datastore import Reading, build

    model, bare = small_model(), ByteTokenizer(())
    tokens = text_of(40) % 200
    store = build(tmp_path / "b", Reading(model, tokens, start=None, length=LENGTH, overlap=OVERLAP), bare)
    rows = torch.cat(list(found_in(store, model, tokens, bare, search_of(store), 2)))
    assert rows.shape == (40, 2)
    assert (rows[0] == -1).all()
    assert (rows[1:] >= 0).all()
