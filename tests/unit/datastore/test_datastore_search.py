"""Searches against a distance matrix written out, and the mixture by its formulas."""

from pathlib import Path

import numpy as np
import pytest
import torch
from stored import TOKENIZER, reading_of, small_model, store_of, text_of

from formers.datastore import (
    Datastore,
    Found,
    Index,
    NearestNeighbours,
    add,
    best_mix,
    build_index,
    compare,
    distribution,
    evaluate_with_store,
    exact,
    extend_index,
    mixed_nats,
    probability,
    search_of,
)
from formers.decode import Sampling, generate
from formers.errors import ConfigError, DataError, FormersError

TEXT = text_of(400)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Datastore:
    return store_of(tmp_path_factory.mktemp("stores") / "s", small_model(), TEXT)


def by_hand(store: Datastore, queries: torch.Tensor, k: int, own: torch.Tensor | None = None) -> Found:
    far = torch.cdist(queries.double(), store.keys(0, store.count).double()).square()
    if own is not None:
        rows = (own >= 0).nonzero()[:, 0]
        far[rows, own[rows]] = float("inf")
    near = far.sort(dim=1, stable=True)
    return Found(near.values[:, :k], near.indices[:, :k])


@pytest.fixture(params=[1 << 25, 16 * 4 * 37, 16 * 4 * 160], ids=["one block", "blocks of 32 keys", "blocks of 160"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("formers.datastore.search.BLOCK", request.param)
    monkeypatch.setattr("formers.datastore.search.SCORES", 37 * 5)
    monkeypatch.setattr("formers.datastore.search.ROWS", 16 * 50)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("k", [1, 7, 64, 399])
@pytest.mark.parametrize("left_out", [False, True])
def test_exact_search_finds_the_nearest(store: Datastore, k: int, left_out: bool) -> None:
    torch.manual_seed(3)
    own = torch.tensor([5, -1, 399, 0, 36, 37, 38, -1, 200]) if left_out else None
    queries = store.keys_at(torch.tensor([5, 6, 399, 0, 36, 37, 38, 90, 200])) + 0.01 * torch.randn(9, 16)
    found, wanted = exact(store, queries, k, own), by_hand(store, queries, k, own)
    torch.testing.assert_close(found.distances.double(), wanted.distances, rtol=1e-4, atol=1e-5)
    for row, others in zip(found.entries, wanted.entries, strict=True):
        assert set(row.tolist()) == set(others.tolist())


@pytest.mark.usefixtures("blocks")
def test_more_than_there_are_is_filled_up_with_nothing(store: Datastore) -> None:
    found = exact(store, store.keys(0, 3), 405, own=torch.tensor([0, 1, -1]))
    assert found.entries.shape == (3, 405)
    assert (found.entries[:2, 399:] == -1).all()
    assert found.distances[:2, 399:].isinf().all()
    assert (found.entries[2, 400:] == -1).all()
    tokens = found.tokens(store.values)
    torch.testing.assert_close(distribution(found, tokens, 257).sum(1), torch.ones(3, dtype=torch.float64))


def test_a_key_is_its_own_nearest_and_at_no_distance(store: Datastore) -> None:
    """The product of matrices would leave some."""
    found = exact(store, store.keys(0, 400), 1)
    assert not found.distances.any()


def test_what_does_not_fit_is_told(store: Datastore) -> None:
    with pytest.raises(DataError, match=r"queries \(2, 15\) do not fit keys of 16"):
        exact(store, torch.zeros(2, 15), 3)
    with pytest.raises(DataError, match="0 neighbours tell nothing"):
        exact(store, torch.zeros(2, 16), 0)


def test_probabilities_are_summed_over_neighbours_of_one_token() -> None:
    found = Found(
        torch.tensor([[0.0, 1.0, 1.0, 3.0], [2.0, float("inf"), float("inf"), float("inf")]]), torch.zeros(2, 4)
    )
    tokens = torch.tensor([[4, 2, 4, 1], [3, -1, -1, -1]])
    e = np.exp([0.0, -1.0, -1.0, -3.0])
    wanted = torch.zeros(2, 6, dtype=torch.float64)
    wanted[0, 4], wanted[0, 2], wanted[0, 1] = (torch.tensor([e[0] + e[2], e[1], e[3]]) / e.sum()).unbind()
    wanted[1, 3] = 1
    torch.testing.assert_close(distribution(found, tokens, 6), wanted)
    for target in range(6):
        torch.testing.assert_close(probability(found, tokens, torch.tensor([target, target])), wanted[:, target])


def test_far_neighbours_do_not_vanish_together() -> None:
    found = Found(torch.tensor([[1e6, 1e6 + 1]]), torch.zeros(1, 2))
    torch.testing.assert_close(
        probability(found, torch.tensor([[1, 2]]), torch.tensor([1])), torch.tensor([1 / (1 + np.exp(-1.0))])
    )


def test_the_best_mix_is_the_best_of_a_fine_grid() -> None:
    generator = torch.Generator().manual_seed(0)
    nats = -torch.rand(500, generator=generator).double().log()
    neighbours = torch.rand(500, generator=generator).double() * (torch.rand(500, generator=generator) < 0.6)
    grid = torch.linspace(0, 0.999, 1000).tolist()
    totals = [float(mixed_nats(nats, neighbours, mix).sum()) for mix in grid]
    best = best_mix(nats, neighbours)
    assert abs(best - grid[int(np.argmin(totals))]) < 1e-3
    assert 0.05 < best < 0.95
    assert float(mixed_nats(nats, neighbours, best).sum()) <= min(totals) + 1e-9
    assert best_mix(nats, torch.zeros(500)) == 0.0
    assert best_mix(nats, torch.ones(500)) == pytest.approx(0.999)


def test_a_text_that_is_stored_does_not_find_itself(store: Datastore, tmp_path: Path) -> None:
    """Its documents are looked up one by one: it may be part of the store, and in another order."""
    ends = (np.flatnonzero(TOKENIZER.end == TEXT) + 1).tolist()
    parts = np.split(TEXT, ends)
    shuffled = np.concatenate([parts[3], text_of(20, seed=9), [TOKENIZER.end], parts[0], parts[-1]])
    own = store.own_entries(shuffled, TOKENIZER.end)
    known = own >= 0
    np.testing.assert_array_equal(store.values[own[known]], shuffled[known])
    assert known.sum() == len(parts[3]) + len(parts[0]) + len(parts[-1])
    assert own[0] == ends[2]
    np.testing.assert_array_equal(store.own_entries(TEXT, TOKENIZER.end), np.arange(400))

    model = small_model()
    reading = reading_of(model, TEXT)
    kept_apart = compare(store, reading, search_of(store), 1, own=torch.arange(400))
    cheating = compare(store, reading, search_of(store), 1)
    assert (cheating.neighbours == 1).all()
    assert kept_apart.neighbours.mean() < 0.5
    found = evaluate_with_store(model, store, TEXT, TOKENIZER, k=1, mix=0.5)
    wanted = mixed_nats(kept_apart.nats, kept_apart.neighbours, 0.5).mean()
    assert found["nats"] == pytest.approx(float(wanted), rel=1e-6)
    assert found["own"] == 400


def test_a_tuned_mix_is_that_of_the_other_half(store: Datastore) -> None:
    model, other = small_model(), text_of(101, seed=4)
    reading = reading_of(model, other)
    compared = compare(store, reading, search_of(store), 8)
    nats, mix = compared.mixed(None)
    first = best_mix(compared.nats[50:], compared.neighbours[50:])
    torch.testing.assert_close(nats[:50], mixed_nats(compared.nats[:50], compared.neighbours[:50], first))
    found = evaluate_with_store(model, store, other, TOKENIZER, k=8, mix=None)
    assert found["mix"] == mix
    assert found["own"] == 0
    alone = evaluate_with_store(model, store, other, TOKENIZER, k=8, mix=0.0)
    assert alone["perplexity"] == pytest.approx(alone["alone_perplexity"])
    with pytest.raises(ConfigError, match="a mix of 1"):
        evaluate_with_store(model, store, other, TOKENIZER, mix=1.0)


def test_a_neighbour_decides_what_is_written(store: Datastore) -> None:
    """The stored text's own beginning, written on by its nearest neighbours alone, is the stored text."""
    model = small_model()
    mixed = NearestNeighbours(model, store, search_of(store), k=1, mix=0.999999)
    prompt = [TOKENIZER.end, *TEXT[:5].tolist()]
    (row,) = generate(mixed, [prompt], max_new=4, sampling=Sampling(temperature=0.0), engine="torch")
    assert list(row.tokens) == TEXT[5:9].tolist()
    with torch.inference_mode():
        logits = mixed.step(torch.tensor([prompt]), None, logits_at=slice(None)).logits
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(1, 6))
    plain = NearestNeighbours(model, store, search_of(store), k=1, mix=0.0)
    with torch.inference_mode():
        wanted = model(torch.tensor([prompt])).logits.log_softmax(-1)
        torch.testing.assert_close(plain.step(torch.tensor([prompt]), None, logits_at=slice(None)).logits, wanted)
    with pytest.raises(FormersError, match="NearestNeighbours"):
        generate(mixed, [prompt], max_new=1, engine="native")


def test_without_faiss_one_is_told(store: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(DataError, match=r"pip install 'formers\[faiss\]'"):
        build_index(store)


@pytest.mark.parametrize("kind", ["flat", "pq"])
def test_an_index_finds_what_exact_search_finds_when_it_looks_everywhere(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("faiss")
    model = small_model()
    store = store_of(tmp_path / "s", model, TEXT)
    with pytest.raises(DataError, match="has no search index: make one"):
        Index(store)
    build_index(store, kind)
    index, queries, own = Index(store, probes=1000), store.keys(10, 60), torch.arange(10, 60)
    wanted = by_hand(store, queries, 4, own)
    found = index.search(queries, 4, own)
    same = [len(set(a) & set(b)) / 4 for a, b in zip(found.entries.tolist(), wanted.entries.tolist(), strict=True)]
    assert np.mean(same) == 1 if kind == "flat" else np.mean(same) > 0.9
    assert not (found.entries == own[:, None]).any()
    if kind == "flat":
        torch.testing.assert_close(found.distances.double(), wanted.distances, rtol=1e-4, atol=1e-5)

    more = add(tmp_path / "s", reading_of(model, text_of(90, seed=7)), TOKENIZER)
    with pytest.raises(DataError, match="knows 400 of 490 entries: bring it up to date"):
        Index(more)
    with pytest.raises(DataError, match="knows 400 of 490"):
        search_of(more)
    assert search_of(more, approximate=False)(queries, 2, None).entries.shape == (50, 2)
    extend_index(more)
    near = Index(more, probes=1000).search(more.keys(400, 490), 1)
    assert (near.entries[:, 0] == torch.arange(400, 490)).float().mean() > 0.95


def test_a_store_that_is_too_small_for_an_index_is_told(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    with pytest.raises(DataError, match="100 keys are too few"):
        build_index(store_of(tmp_path / "s", small_model(), text_of(100)))
