"""Tokens that the engine draws: those that PyTorch draws from the same logits by the same numbers."""

from typing import Any

import numpy as np
import pytest
import torch
from small import KERNELS, LEARNED, ROLLING, VOCAB, awake, decoder, session

from formers import MLP, FormersError
from formers.decode.sampling import GREEDY, Sampling, choose, row_seeds, uniforms, weigh
from formers.native.engine.library import engine
from formers.native.engine.lower import lower
from formers.native.engine.run import Engine

WAYS = [
    GREEDY,
    Sampling(),
    Sampling(0.6),
    Sampling(top_k=3),
    Sampling(top_k=1),
    Sampling(top_k=10**6),
    Sampling(top_p=0.7),
    Sampling(top_p=0.999),
    Sampling(min_p=0.2),
    Sampling(min_p=1.0),
    Sampling(0.0, repetition_penalty=3.0),
    Sampling(repetition_penalty=0.5),
    Sampling(1.3, top_k=9, top_p=0.8, min_p=0.1, repetition_penalty=1.3),
]
SEEDS = [5, 2**63 - 1, 0]


def test_random_numbers_are_philoxs() -> None:
    places = [0, 1, 2, 3, 4, 5, 1000, 2**40 + 3]
    for seed in SEEDS:
        table = uniforms([seed], 1001)[0].tolist()
        assert [engine().uniform(seed, place) for place in places[:-1]] == [table[place] for place in places[:-1]]
        bits = np.random.Philox(key=seed, counter=2**38).random_raw(4)[3]
        assert engine().uniform(seed, places[-1]) == float(bits >> np.uint64(40)) * 2**-24


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sampling", WAYS, ids=str)
def test_draws_what_pytorch_draws(sampling: Sampling, kernel: str) -> None:
    whole = Engine(lower(awake(LEARNED)), kernel)
    ours, logits_of = whole.session(3, threads=1), whole.session(3, threads=1)
    prompts, streams = [[3, 1, 4, 1], [7], [9, 9]], [2, 0, 1]
    told = (
        [token for row in prompts for token in row],
        [s for s, row in zip(streams, prompts, strict=True) for _ in row],
    )
    table = uniforms(SEEDS, 12)
    written = ours.write(*told, count=8, sampling=sampling, seeds=SEEDS, drawn=2)
    history = [list(row) for row in prompts]
    ends = np.cumsum([len(row) for row in prompts]) - 1
    logits = logits_of.step(*told)[ends]
    for n in range(8):
        tokens = [
            int(choose(torch.from_numpy(row[None]), sampling, table[i, n + 2 : n + 3], torch.tensor(history[i])[None]))
            for i, row in enumerate(logits)
        ]
        assert [row[n] for row in written] == tokens
        history = [[*row, token] for row, token in zip(history, tokens, strict=True)]
        logits = logits_of.step(tokens, streams)


@pytest.mark.parametrize("sampling", WAYS[1:], ids=str)
def test_draws_follow_the_distribution(sampling: Sampling) -> None:
    """The chi-square of many draws, each from a fresh stream, against what PyTorch weighs them by."""
    count, chance = 4000, torch.Generator().manual_seed(1)
    logits = torch.linspace(-2, 2, VOCAB)[torch.randperm(VOCAB, generator=chance)]
    logits[0] = 1.0
    streams = Engine(lower(table_of(logits))).session(50, threads=1)
    seeds, drawn = row_seeds(11, 50), []
    for turn in range(count // 50):
        written = streams.write([0] * 50, count=1, sampling=sampling, seeds=seeds, drawn=turn)
        drawn += [token for (token,) in written]
    plain = Sampling(sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)
    scores = logits.clone()
    scores[0] = torch.where(
        scores[0] < 0, scores[0] * sampling.repetition_penalty, scores[0] / sampling.repetition_penalty
    )
    weights, ids = weigh(scores[None], plain)
    expected = torch.zeros(VOCAB).scatter(0, torch.arange(VOCAB) if ids is None else ids[0], weights[0])
    expected = expected / expected.sum() * count
    found = torch.bincount(torch.tensor(drawn), minlength=VOCAB)
    assert not found[expected == 0].any()
    kept = expected > 0
    square = float(((found - expected)[kept] ** 2 / expected[kept]).sum())
    degrees = int(kept.sum()) - 1
    assert square <= degrees + 4 * (2 * max(degrees, 1)) ** 0.5


def table_of(logits: torch.Tensor) -> Any:
    """A model whose logits behind token 0, for which they are 1, are these."""
    model: Any = awake(decoder(MLP(8), norm=None))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embedding.tokens.weight[:, 0] = logits
    return model


def test_a_prompt_is_read_and_written_on_in_one_call() -> None:
    once, twice = session(ROLLING, 2), session(ROLLING, 2)
    found = once.write([3, 1, 4, 9, 2], [1, 1, 1, 0, 0], count=5)
    twice.step([3, 1, 9], [1, 1, 0])
    assert found == twice.write([4, 2], [1, 0], count=5)
    assert once.length(1) == 3 + 4 and once.length(0) == 2 + 4
    with pytest.raises(FormersError, match="do not stand together"):
        once.write([1, 2, 3], [0, 1, 0], count=1)


def test_a_stream_that_begins_anew_has_seen_nothing() -> None:
    streams, fresh = session(ROLLING), session(ROLLING)
    how: dict[str, Any] = {"count": 6, "sampling": Sampling(0.0, repetition_penalty=5.0)}
    streams.write(list(range(VOCAB)), [0] * VOCAB, **how)
    streams.reset(0)
    assert streams.write([4], **how) == fresh.write([4], **how)


def test_many_tokens_are_drawn_as_few() -> None:
    """A vocabulary of many runs of weights."""
    model = awake(LEARNED.replace(vocab=1000))
    for sampling in (Sampling(), Sampling(top_p=0.9), Sampling(top_k=200, min_p=0.01)):
        ours, logits_of = (Engine(lower(model)).session(threads=1) for _ in range(2))
        (written,) = ours.write([7], count=20, sampling=sampling, seeds=[3])
        logits, table = logits_of.step([7]), uniforms([3], 20)
        for n, token in enumerate(written):
            assert token == int(choose(torch.from_numpy(logits), sampling, table[:, n]))
            logits = logits_of.step([token])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sampling": Sampling(), "seeds": []}, "one seed for each stream"),
        ({"sampling": Sampling(), "seeds": [1, 2]}, "one seed for each stream"),
        ({"sampling": Sampling(), "seeds": [-1]}, "cannot take this"),
        ({"sampling": Sampling(), "seeds": [2**64]}, "cannot take this"),
    ],
)
def test_what_cannot_be_drawn_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(FormersError, match=words):
        session(ROLLING).write([1], count=1, **given)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((-1.0, 0, 1.0, 0.0, 1.0), "temperature is 0 or a positive"),
        ((float("nan"), 0, 1.0, 0.0, 1.0), "temperature"),
        ((1e-9, 0, 1.0, 0.0, 1.0), "could overflow"),
        ((1.0, -1, 1.0, 0.0, 1.0), "top_k"),
        ((1.0, 0, 0.0, 0.0, 1.0), "top_p is above 0"),
        ((1.0, 0, 1.0, 2.0, 1.0), "min_p"),
        ((1.0, 0, 1.0, 0.0, 0.0), "penalty"),
    ],
)
def test_numbers_that_cannot_be_are_refused_by_the_engine_itself(numbers: tuple[Any, ...], words: str) -> None:
    native = session(ROLLING)._native
    tokens = np.zeros(1, np.int64)
    with pytest.raises(ValueError, match=words):
        native.write(tokens, tokens, count=1, stops=[], sampling=numbers, seeds=[1], drawn=0)
