"""What commands say of a datastore, and what they do with one."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from formers.cli.parser import Parser
from formers.cli.progress import ticking
from formers.data.tokenizer import Tokenizer
from formers.datastore import Datastore, NearestNeighbours, RetrievedTokens, Tap, evaluate_with_store, search_of
from formers.datastore.evaluate import MIX, NEIGHBOURS, Search
from formers.datastore.training import (
    evaluate_retrieved,
    found_in,
    has_neighbours,
    prepare_neighbours,
    reads_neighbours,
)
from formers.errors import CheckpointError, ConfigError, DataError
from formers.train import TrainSpec, load_model
from formers.train.device import pick_device
from formers.train.run import run_folder

TAKEN_IN = 4  # neighbours that a gate is given, where it is not said how many
TUNE = "tune"
Figures = dict[str, float]


class Beside(NamedTuple):
    """A store as the options have it."""

    store: Datastore
    search: Search
    k: int


def declare_neighbours(parser: Parser, told: str) -> None:
    """A datastore, and how it is looked up. told: what it is for."""
    group = parser.add_argument_group("datastore")
    group.add_argument("--datastore", type=Path, metavar="DIR", help=told)
    told = f"how many are looked up for each token ({NEIGHBOURS}; {TAKEN_IN} for a model that takes them in)"
    group.add_argument("--neighbours", type=int, metavar="K", help=told)
    group.add_argument("--exact", action="store_true", help="look at every key, though there is a search index")


def declare_mix(parser: Parser, told: str, *, may_tune: bool = False) -> None:
    """How much the neighbours have to say."""
    parser.add_argument("--mix", type=_mix_or_tune if may_tune else float, metavar="X", help=told)


def open_beside(options: argparse.Namespace, usual: int) -> Beside:
    """The store that the options name, and how many neighbours, `usual` where they do not say. Raises DataError as
    `Datastore` and `Index` do."""
    store = Datastore(options.datastore)
    search = search_of(store, approximate=False if options.exact else None)
    return Beside(store, search, usual if options.neighbours is None else options.neighbours)


def reader_of(store: Datastore) -> nn.Module:
    """The model that a store's keys are of, from where it lay when the store was built. Raises DataError."""
    try:
        return load_model(store.header.run).to(pick_device())
    except CheckpointError as error:
        raise DataError(f"the keys of {store.folder} are of the model in {store.header.run}: {error}") from None


def evaluate_beside(options: argparse.Namespace, model: nn.Module, material: Any, training: TrainSpec) -> Figures:
    """A model's figures with the store of the options beside it: mixed with its neighbours, or taking them in."""
    spec: Any = model.spec
    Tap(model)  # says of what is no decoder that it has no keys
    beside = open_beside(options, TAKEN_IN if reads_neighbours(spec) else NEIGHBOURS)
    text, tokenizer = material.held_out, material.tokenizer
    if not reads_neighbours(spec):
        mix = MIX if options.mix is None else None if options.mix == TUNE else options.mix
        how: dict[str, Any] = {"k": beside.k, "mix": mix, "search": beside.search}
        with ticking("evaluating") as tick:
            return evaluate_with_store(model, beside.store, text.tokens, tokenizer, tick=tick, **how)
    _refuse(options, ("mix",), f"the gate of {spec.name} mixes by itself")
    reader = reader_of(beside.store)
    beside.store.require(reader, tokenizer)
    found: list[Any] = []
    with ticking("looking up") as tick:
        for rows in found_in(beside.store, reader, text.tokens, tokenizer, beside.search, beside.k):
            found.append(rows.numpy())
            tick(sum(map(len, found)) / len(text))
    with ticking("evaluating") as tick:
        rows = np.concatenate(found)
        return evaluate_retrieved(model, text, rows, tokenizer, training.length, training.batch, tick=tick)


def with_store(options: argparse.Namespace, model: nn.Module, tokenizer: Tokenizer) -> nn.Module:
    """The model as it writes with the store of the options, or itself where they name none. Raises FormersError."""
    if options.datastore is None:
        refuse_without_store(options)
        return model
    spec: Any = model.spec
    beside = open_beside(options, TAKEN_IN if reads_neighbours(spec) else NEIGHBOURS)
    if not reads_neighbours(spec):
        beside.store.require(model, tokenizer)
        return NearestNeighbours(model, *beside, MIX if options.mix is None else options.mix).eval()
    _refuse(options, ("mix",), f"the gate of {spec.name} mixes by itself")
    reader = reader_of(beside.store)
    beside.store.require(reader, tokenizer)
    return RetrievedTokens(model, reader, *beside).eval()


def refuse_without_store(options: argparse.Namespace) -> None:
    """Raise ConfigError for options about a store where none is named."""
    if options.datastore is None:
        _refuse(
            options, ("mix", "neighbours", "exact"), "there is no store to look anything up in, add --datastore DIR"
        )


def refuse_store(options: argparse.Namespace, why: str) -> None:
    """Raise ConfigError where a store is named."""
    refuse_without_store(options)
    _refuse(options, ("datastore",), why)


def require_store(options: argparse.Namespace, spec: Any, begin: Path | None = None) -> None:
    """Raise ConfigError unless a model that is to be trained and the store of the options need each other.

    begin: the run that it goes on from, whose data may have been looked up already.
    """
    refuse_without_store(options)
    known = begin is not None and not options.data and has_neighbours(run_folder(begin) / "data")
    if options.datastore is None and reads_neighbours(spec) and not known:
        raise ConfigError(f"{spec.name} learns from retrieved tokens: name where they are found with --datastore DIR")
    if options.datastore is not None:
        if not reads_neighbours(spec):
            raise ConfigError(
                f"{spec.name} takes in no retrieved tokens, since no part of it is a RetrievalGate: leave out --datastore "
                "here, and mix neighbours in with formers eval and generate"
            )
        open_beside(options, TAKEN_IN)


def store_run(options: argparse.Namespace) -> str | None:
    """Where the tokenizer of the store that the options name lies; None: they name none."""
    return None if options.datastore is None else str(run_folder(Path(Datastore(options.datastore).header.run)))


def take_in(options: argparse.Namespace, material: Any, folder: Path) -> Any:
    """Data in a folder, with what the store of the options has for each of its tokens."""
    if options.datastore is None:
        return material
    beside = open_beside(options, TAKEN_IN)
    with ticking("looking up every token") as tick:
        return prepare_neighbours(
            material, folder, beside.store, reader_of(beside.store), beside.search, beside.k, tick
        )


def _refuse(options: argparse.Namespace, names: Sequence[str], why: str) -> None:
    for name in names:
        if getattr(options, name, None) not in (None, False):
            raise ConfigError(f"--{name}: {why}")


def _mix_or_tune(text: str) -> float | str:
    try:
        return text if text == TUNE else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a share nor the word tune") from None
