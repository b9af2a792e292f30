"""Training with retrieved tokens: neighbours are looked up once, by a frozen model, and lie beside the data."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from formers.carried import carries
from formers.data.atomic import read_json, replacing, write_json
from formers.data.batches import Ordered, OrderedStreams
from formers.data.tokenizer import Tokenizer
from formers.data.tokens import Ids, TokenFile
from formers.datastore.evaluate import Search, own_of, reading_for
from formers.datastore.store import VALUE, Datastore
from formers.errors import DataError
from formers.retrieval import RetrievalGate
from formers.spec import Spec
from formers.spec.core import parts_within
from formers.tasks.causal import Causal, CausalStreams
from formers.tasks.chunked_loss import lost
from formers.tasks.prepare import Prepared
from formers.tasks.score import Tally
from formers.train.digest import digest_of_file
from formers.train.spec import TrainSpec
from formers.train.task import Batch, Loss, Tick, device_of, untold

NOTE = "neighbours.json"
PARTS = ("train", "held_out")
Rows = npt.NDArray[np.int32]


@dataclass(frozen=True)
class PreparedNeighbours(Prepared):
    """Text, and for each of its tokens the k tokens (n, k) that were found where it is predicted; -1 for none."""

    train_found: Rows
    held_out_found: Rows


def reads_neighbours(spec: Spec) -> bool:
    """Whether a model takes in retrieved tokens."""
    return any(isinstance(part, RetrievalGate) for part in parts_within(spec))


def prepare_neighbours(
    prepared: Prepared, folder: Path, store: Datastore, model: nn.Module, search: Search, k: int, tick: Tick = untold
) -> PreparedNeighbours:
    """Look up every token of the data, which lies in a folder, and leave what was found beside it.

    model: the frozen one that the store's keys are of. No token finds itself where its document is stored. Raises DataError
    for a store of another model or tokenizer.
    """
    store.require(model, prepared.tokenizer)
    (folder / NOTE).unlink(missing_ok=True)
    total, before = len(prepared.train) + len(prepared.held_out), 0
    for name, text in zip(PARTS, (prepared.train, prepared.held_out), strict=True):
        with replacing(folder / f"{name}.neighbours") as (stream,):
            for found in found_in(store, model, text.tokens, prepared.tokenizer, search, k):
                stream.write(found.numpy().astype(VALUE).tobytes())
                before += len(found)
                tick(before / total)
    digests = {f"{name}.neighbours": digest_of_file(folder / f"{name}.neighbours") for name in PARTS}
    write_json(folder / NOTE, {"k": k, "store": str(store.folder), "digests": digests})
    return with_neighbours(prepared, folder)


def has_neighbours(folder: Path) -> bool:
    """Whether the data in a folder has been looked up."""
    return (folder / NOTE).is_file()


def with_neighbours(prepared: Prepared, folder: Path) -> PreparedNeighbours:
    """What `prepare_neighbours` left in a folder. Raises DataError if it is not whole."""
    note = read_json(folder / NOTE)
    found = [_mapped(folder / f"{name}.neighbours", int(note["k"])) for name in PARTS]
    for rows, text in zip(found, (prepared.train, prepared.held_out), strict=True):
        if len(rows) != len(text):
            raise DataError(
                f"{folder} has neighbours of {len(rows):,} tokens for {len(text):,}: prepare the data again"
            )
    fingerprints = prepared.fingerprints | dict(note["digests"])
    return PreparedNeighbours(prepared.tokenizer, prepared.train, prepared.held_out, fingerprints, found[0], found[1])


def found_in(store: Datastore, model: nn.Module, tokens: Ids, tokenizer: Tokenizer, search: Search, k: int) -> Any:
    """The tokens (n, k) int64 that are found for those of a text, piece by piece, -1 for none."""
    reading = reading_for(store, model, tokens, tokenizer)
    own = own_of(store, reading, tokenizer)
    if reading.count < len(tokens):
        yield torch.full((1, k), -1)
    for piece in reading.pieces():
        here = slice(piece.first, piece.first + len(piece.tokens))
        yield search(piece.keys, k, None if own is None else own[here]).tokens(store.values)


class Retrieved(Causal):
    """Next tokens of windows whose every place brings its neighbours along; a `Task`."""

    def __init__(self, prepared: PreparedNeighbours, spec: TrainSpec) -> None:
        places: Any = np.arange(len(prepared.train))  # windows are cut of places, which tell tokens and neighbours
        super().__init__(replace(prepared, train=places), spec)
        self._text, self._found = prepared.train.tokens, prepared

    def batch(self, step: int) -> Batch:
        """inputs and targets, (B, T) int64 each; retrieved (B, T, k): what was found where each target is predicted."""
        places = super().batch(step)
        batch = {name: _taken(self._text, at) for name, at in places.items()}
        return batch | {"retrieved": _taken(self._found.train_found, places["targets"])}

    def loss(self, model: Any, batch: Batch) -> Loss:
        return super().loss(functools.partial(model, retrieved=batch["retrieved"]), batch)

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """See `evaluate_retrieved`."""
        found, spec = self._found, self._spec
        tokenizer = found.tokenizer
        return evaluate_retrieved(
            model, found.held_out, found.held_out_found, tokenizer, spec.length, spec.batch, limit, tick
        )


class RetrievedStreams(Retrieved, CausalStreams):
    """The same of streams, for models that carry a state; a `StreamTask`."""

    def loss(self, model: Any, batch: Batch, state: Any = None) -> Loss:
        return CausalStreams.loss(self, functools.partial(model, retrieved=batch["retrieved"]), batch, state)


def retrieved_task(prepared: PreparedNeighbours, spec: TrainSpec, model: Spec) -> Retrieved:
    """From streams where the model carries a state, else from windows."""
    return RetrievedStreams(prepared, spec) if carries(model) else Retrieved(prepared, spec)


def evaluate_retrieved(
    model: nn.Module,
    text: TokenFile,
    found: Rows,
    tokenizer: Tokenizer,
    length: int,
    batch: int,
    limit: int | None = None,
    tick: Tick = untold,
) -> dict[str, float]:
    """As `evaluate_text`, with what was found (n, k) for each token; "gate" is the mean of g, the model's own share."""
    spec: Any = model.spec
    count = len(text) if limit is None else min(limit, len(text))
    goes_on, after = carries(spec), tokenizer.end is not None
    ids = np.concatenate([[tokenizer.end or 0], text.tokens[:count]])  # place 0 is what stands before the text
    windows: Any = (OrderedStreams if goes_on else Ordered)(
        np.arange(1, count + 1), length, batch, start=0 if after else None
    )
    tally, state, gates = Tally(), None, [0.0, 0.0]
    for number, (rows, real) in enumerate(windows, 1):
        counted, device = real[:, 1:], device_of(model)
        targets, inputs = (_taken(ids, at).to(device) for at in (rows[:, 1:], rows[:, :-1]))
        near = _taken(found, (rows[:, 1:] - 1).clamp(min=0)).to(device)
        named = {"state": state, "remember": goes_on, "retrieved": near, "logits_at": counted.to(device)}
        with torch.no_grad():
            loss = lost(model, targets[counted], inputs, **named)
        state = loss.state
        tally.add(loss)
        for gate in loss.records.get("gate", ()):
            gates = [gates[0] + float(gate[counted].sum()), gates[1] + int(counted.sum())]
        tick(number / len(windows))
    opening = 0.0 if after else float(np.log(tokenizer.vocab))
    figures = tally.score(count, text.text_bytes if count == len(text) else None, opening=opening)
    return figures | ({"gate": gates[0] / gates[1]} if gates[1] else {})


def _taken(rows: npt.NDArray[Any], places: Tensor) -> Tensor:
    return torch.from_numpy(rows[places.numpy()].astype(np.int64))


def _mapped(path: Path, k: int) -> Rows:
    if not path.is_file() or path.stat().st_size % (k * VALUE.itemsize):
        raise DataError(f"{path} is missing or damaged: prepare the data again")
    rows: Rows = np.memmap(path, dtype=VALUE, mode="r").reshape(-1, k)
    return rows
