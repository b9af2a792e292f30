"""Datastores: ten million keys within four gigabytes of memory, and what approximate search costs."""

import functools
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from formers.bench.memory import GIB, high_water, in_fresh_process
from formers.bench.registry import BENCHES, Rival
from formers.bench.trial import Trial
from formers.claim.cases.knn_lm import language_model, store_of
from formers.claim.neighbour_task import TINY, Sizes, keys_of, nats_of, python_sources, targets_of
from formers.data.tokenizer import ByteTokenizer
from formers.datastore import Datastore, Found, Index, Reading, build, build_index, exact, mixed_nats, probability
from formers.datastore.index import PROBES, lists_for
from formers.datastore.windows import Piece
from formers.datastore.writing import require_room
from formers.family import make
from formers.report.rows import Row, value_at_most

SUITE = "memory"
KEYS, DIM, NEIGHBOURS, QUERIES = 10_000_000, 256, 32, 256
MOST = 4.0  # GiB
CLUSTERS, SPREAD = 20_000, 0.5  # of the drawn keys: around so many points, at that share of their distances
PIECE = 1 << 15
MIX = 0.25
FAISS = Rival("exact search", package="faiss-cpu", extra="faiss")


@BENCHES.case(
    SUITE,
    "a datastore of 10,000,000 keys of 256 floats: built, indexed and searched, each in a process of its own",
    unit="GiB",
    better="lower",
)
def ten_million(trial: Trial) -> Iterator[Row]:
    """Keys are drawn around centres, for no model could make them in time; everything else is as it always is."""
    yield from a_store_of(trial, 20_000 if trial.quick else KEYS, 32 if trial.quick else DIM)


def a_store_of(trial: Trial, keys: int, dim: int) -> Iterator[Row]:
    """So many keys, so wide. The folder is removed afterwards."""
    folder = trial.keep("datastore")
    require_room(folder, keys * (4 * dim + 4 + 80))  # the index has codes of 64 bytes and numbers of 8
    steps = ["building", "searching exactly", "indexing", f"searching {PROBES} lists"]
    try:
        with trial.progress(steps[0], len(steps) if FAISS.installed else 2) as tick:
            built = in_fresh_process(build_drawn, folder, keys, dim)
            yield from figures(trial, f"building {keys:,} keys", built, "keys")
            tick(1, steps[1])
            looked = in_fresh_process(search_drawn, folder, None)
            yield from figures(trial, "exact search", looked, "queries")
            if not FAISS.installed:
                yield trial.row("search by FAISS", None, note=FAISS.remedy)
                return
            tick(1, steps[2])
            indexed = in_fresh_process(index_drawn, folder)
            yield from figures(trial, f"an index of {lists_for(keys):,} lists", indexed, "keys")
            tick(1, steps[3])
            near = in_fresh_process(search_drawn, folder, PROBES)
            yield from figures(trial, f"search by FAISS, {PROBES} lists", near, "queries")
            assert looked.entries is not None and near.entries is not None
            share = recall(near.entries, looked.entries)
            yield trial.row(f"{NEIGHBOURS} neighbours that it finds", share, unit="share", better="higher")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Measured(NamedTuple):
    """What was done a second, the most bytes in memory meanwhile, and what was found."""

    rate: float
    peak: int
    entries: Tensor | None = None


def figures(trial: Trial, name: str, found: Measured, what: str) -> Iterator[Row]:
    """Memory, which has a goal, and speed."""
    yield trial.row(f"{name}: most memory", found.peak / GIB, goal=value_at_most(MOST))
    yield trial.row(f"{name}: speed", found.rate, unit=f"{what}/s", better="higher")


class Drawn(Reading):
    """A text whose keys are drawn, piece by piece, as a function of where they stand."""

    def __init__(self, keys: int, dim: int) -> None:
        tokens = np.arange(keys, dtype=np.int64) % 256
        super().__init__(_holder(dim), tokens.astype(np.uint16), start=256, length=PIECE, overlap=0, rows=1)
        self._dim = dim

    def pieces(self, after: int = 0, *, scored: bool = False) -> Iterator[Piece]:
        """As of any reading."""
        for first in range(after, self.count, PIECE):
            stop = min(first + PIECE, self.count)
            yield Piece(
                first,
                drawn(stop - first, self._dim, first),
                torch.from_numpy(self.predicted[first:stop].astype(int)),
                None,
            )


def drawn(count: int, dim: int, seed: int) -> Tensor:
    """Keys (count, dim) around centres that are the same for every seed."""
    chance = torch.Generator().manual_seed(seed + 1)
    of = torch.randint(CLUSTERS, (count,), generator=chance)
    return centres(dim)[of] + SPREAD * torch.randn(count, dim, generator=chance)


@functools.cache
def centres(dim: int) -> Tensor:
    """(CLUSTERS, dim)."""
    return torch.randn(CLUSTERS, dim, generator=torch.Generator().manual_seed(0))


def _holder(dim: int) -> nn.Module:
    """A model of that width, for the store to be of."""
    return make("gpt2", vocab=257, dim=dim, depth=1, heads=1, hidden=8, length=8).build()


def build_drawn(folder: Path, keys: int, dim: int) -> Measured:
    """Built, and how it went."""
    begin = perf_counter()
    peak = high_water(lambda: build(folder, Drawn(keys, dim), ByteTokenizer()))
    return Measured(keys / (perf_counter() - begin), peak)


def index_drawn(folder: Path) -> Measured:
    """The store's index, built."""
    store = Datastore(folder)
    begin = perf_counter()
    peak = high_water(lambda: build_index(store))
    return Measured(store.count / (perf_counter() - begin), peak)


def search_drawn(folder: Path, probes: int | None) -> Measured:
    """Queries that are drawn as the keys were, exactly, or in so many lists; the second of two turns is timed."""
    store = Datastore(folder)
    queries = drawn(QUERIES, store.dim, seed=1 << 40)
    index = None if probes is None else Index(store, probes)
    turns: list[tuple[float, Found]] = []

    def turn() -> None:
        begin = perf_counter()
        found = exact(store, queries, NEIGHBOURS) if index is None else index.search(queries, NEIGHBOURS)
        turns.append((perf_counter() - begin, found))

    peak = max(high_water(turn), high_water(turn))
    seconds, found = turns[-1]
    return Measured(QUERIES / seconds, peak, found.entries)


def recall(found: Tensor, wanted: Tensor) -> float:
    """The share of the wanted entries (Q, k) that are among those found."""
    return float((found[:, :, None] == wanted[:, None, :]).any(1).double().mean())


@BENCHES.case(
    SUITE,
    "what approximation costs: a store of a small model's keys (dim 96) on Python's sources, k 32, mix 0.25",
    unit="perplexity",
    better="lower",
    rival=FAISS,
)
def approximation(trial: Trial) -> Iterator[Row]:
    """Perplexity with each search beside that with exact search, of one model and one text."""
    sizes = TINY if trial.quick else Sizes(steps=300)
    with TemporaryDirectory() as folder, trial.progress("learning", sizes.steps + 2) as tick:
        domain = python_sources(sizes)
        model = language_model(Path(folder), domain, sizes, tick)
        tick(1, "storing")
        store = store_of(Path(folder) / "store", model, domain.train[: sizes.stored], sizes)
        windows = domain.windows(sizes)
        queries, targets, (nats, _) = keys_of(model, windows), targets_of(windows), nats_of(model, windows)
        tick(1, "searching")

        def told(found: Found) -> float:
            near = probability(found, found.tokens(store.values), targets)
            return math.exp(float(mixed_nats(nats, near, MIX).mean()))

        begin = perf_counter()
        wanted = exact(store, queries, sizes.k)
        seconds = perf_counter() - begin
        yield trial.row("the model alone", math.exp(float(nats.double().mean())), rival=None)
        note = f"{len(queries) / seconds:,.0f} queries a second"
        yield trial.row(f"exact, {store.count:,} keys", told(wanted), rival=None, note=note)
        if not FAISS.installed:
            yield trial.row("approximate", None, told(wanted))
            return
        for kind in ("flat", "pq"):
            build_index(store, kind)
            for probes in (1, 8, PROBES):
                index = Index(store, probes)
                begin = perf_counter()
                found = index.search(queries, sizes.k)
                rate = len(queries) / (perf_counter() - begin)
                share = recall(found.entries, wanted.entries)
                note = f"{share:.1%} of the neighbours, {rate:,.0f} queries a second"
                yield trial.row(
                    f"{kind}, {probes} of {lists_for(store.count)} lists", told(found), told(wanted), note=note
                )
