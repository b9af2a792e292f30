"""kNN-LM: a store of contexts from the test's domain lowers a model's loss there without training it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from formers.bench.registry import CLAIMS, Rival
from formers.bench.trial import Trial
from formers.claim.neighbour_task import (
    TINY,
    TOKENIZER,
    Domain,
    Sizes,
    cpp_headers,
    keys_of,
    learn,
    nats_of,
    prepared,
    python_sources,
    targets_of,
    training,
)
from formers.data.tokens import Ids
from formers.datastore import Datastore, Reading, best_mix, build, exact, mixed_nats, probability
from formers.family import make
from formers.report.rows import Row, value_at_least, value_at_most
from formers.tasks import causal_task

BITS = 1 / torch.tensor(2.0).log().item()
ALONE = Rival("the same model without a store")


@CLAIMS.case(
    "knn_lm",
    "neighbours in a store of 300,000 contexts (arXiv:1911.00172), for a model of Python's sources (2 layers, dim 96) on "
    "these, and on C++ headers that it has never seen",
    unit="bits/character",
    rival=ALONE,
)
def knn_lm(trial: Trial) -> Iterator[Row]:
    """Each store is of its domain's own text, the characters that are told are held out; k = 32."""
    sizes = TINY if trial.quick else Sizes()
    with TemporaryDirectory() as folder, trial.progress("", sizes.steps + 5) as tick:
        place, home, away = Path(folder), python_sources(sizes), cpp_headers(sizes)
        tick(0, "learning")
        model = language_model(place, home, sizes, tick)
        found = {}
        for name, domain, stored in (
            ("in domain", home, sizes.stored),
            ("out of domain", away, sizes.stored),
            ("out of domain, a tenth of the store", away, sizes.few),
        ):
            tick(1, name)
            store = store_of(place / name, model, domain.train[:stored], sizes)
            found[name] = mixed(model, store, domain.windows(sizes), sizes.k)
    yield from rows(trial, found)


class Mixed(NamedTuple):
    """Bits a character of the model alone, and mixed with its neighbours by the best mix of the other half."""

    alone: float
    bits: float
    mix: float


def language_model(place: Path, domain: Domain, sizes: Sizes, tick: Callable[[], object]) -> nn.Module:
    """A Transformer-XL of the domain."""
    spec = make("transformer_xl", **sizes.model)
    task = causal_task(prepared(place, domain), training(sizes, sizes.steps), spec)
    torch.manual_seed(0)
    return learn(spec.build(), task, sizes, sizes.steps, 3e-3, tick)


def store_of(place: Path, model: nn.Module, text: Ids, sizes: Sizes) -> Datastore:
    """Every key has half a window before it."""
    reading = Reading(model, text, start=None, length=sizes.length, overlap=sizes.length // 2, rows=32)
    return build(place, reading, TOKENIZER)


def mixed(model: nn.Module, store: Datastore, windows: Tensor, k: int) -> Mixed:
    """Each half of the characters by the mix that is best for the other."""
    found = exact(store, keys_of(model, windows), k)
    near = probability(found, found.tokens(store.values), targets_of(windows))
    nats, _ = nats_of(model, windows)
    halves = [slice(0, len(nats) // 2), slice(len(nats) // 2, None)]
    mixes = [best_mix(nats[half], near[half]) for half in halves]
    both = [mixed_nats(nats[half], near[half], mix) for half, mix in zip(halves, mixes[::-1], strict=True)]
    return Mixed(BITS * float(nats.mean()), BITS * float(torch.cat(both).mean()), sum(mixes) / 2)


def rows(trial: Trial, found: dict[str, Mixed]) -> Iterator[Row]:
    """What each store saves, and how much its neighbours have to say."""
    for name, each in found.items():
        note = f"mixed by {each.mix:.2f}"
        yield trial.row(name, each.bits, each.alone, better="lower", note=note)
    home, away, few = found.values()
    alone: dict[str, Any] = {"rival": None}
    yield trial.row("saved in domain", home.alone - home.bits, goal=value_at_least(0.01), **alone)
    yield trial.row("saved out of domain", away.alone - away.bits, goal=value_at_least(0.3), **alone)
    yield trial.row(
        "saved by the larger store over the smaller", few.bits - away.bits, goal=value_at_least(0.1), **alone
    )
    share: dict[str, Any] = {"unit": "share", **alone}
    yield trial.row("best mix in domain", home.mix, goal=value_at_most(0.25), better="lower", **share)
    yield trial.row("best mix out of domain, above that", away.mix - home.mix, goal=value_at_least(0.1), **share)
