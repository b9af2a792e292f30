"""Approximate search by FAISS: keys in lists around centroids, of which a query looks at the nearest."""

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from formers.data.atomic import read_json, write_json
from formers.data.chance import shuffled
from formers.datastore.found import Found
from formers.datastore.search import checked, measured
from formers.datastore.store import Datastore
from formers.datastore.writing import require_room
from formers.errors import DataError
from formers.train.task import Tick, untold

Kind = Literal["flat", "pq"]
KINDS: tuple[Kind, ...] = ("flat", "pq")
INDEX, NOTE = "search.index", "search.json"
PROBES = 32  # lists that a query looks at, as in the paper's code
PER_LIST = 64  # keys that each centroid is trained on
ROUNDS = 10  # of training the codes, as many as FAISS takes to train the lists
LEAST = 256  # keys that a code of 8 bits is trained on
CODE = 64  # bytes of a key's code, at most
WIDER = 4  # times the neighbours that are asked for are looked up by code, and then measured by the keys themselves
BLOCK = 1 << 26  # bytes of keys that are put into an index at a time


def build_index(store: Datastore, kind: Kind = "pq", tick: Tick = untold) -> "Index":
    """Train an index on a sample of a store's keys, put all of them in, and leave it beside them.

    "pq" keeps a code of at most 64 bytes a key (Jégou et al. 2011), and measures what it finds by the keys on disk; "flat"
    keeps all keys a second time, and in memory while it is built. The sample goes by the entries' numbers alone, so equal
    stores get equal indices. Raises DataError without faiss, for a store that is too small, and a disk that is.
    """
    faiss = _faiss()
    if store.count < LEAST:
        raise DataError(
            f"{store.count} keys are too few to train an index on, which takes {LEAST}: exact search is fast there"
        )
    lists = lists_for(store.count)
    require_room(store.folder, store.count * (8 + (4 * store.dim if kind == "flat" else _code(store.dim))))
    plain = faiss.IndexFlatL2(store.dim)
    index = (
        faiss.IndexIVFFlat(plain, store.dim, lists)
        if kind == "flat"
        else faiss.IndexIVFPQ(plain, store.dim, lists, _code(store.dim), 8)
    )
    index.cp.min_points_per_centroid = 1  # it would print a warning for small stores
    if kind == "pq":
        index.pq.cp.min_points_per_centroid = 1
        index.pq.cp.max_points_per_centroid = PER_LIST  # more make the codes no better, and take most of the time
        index.pq.cp.niter = ROUNDS
    sample = min(store.count, max(LEAST, PER_LIST * lists))
    chosen = shuffled(np.arange(sample), store.count, seed=0)
    index.train(store.keys_at(torch.from_numpy(chosen)).numpy())
    _fill(store, index, kind, tick)
    return Index(store)


def extend_index(store: Datastore, tick: Tick = untold) -> "Index":
    """Put the entries that were added to a store since into its index, whose centroids stay."""
    note = _note(store)
    index = _faiss().read_index(str(store.folder / INDEX))
    _fill(store, index, note["kind"], tick)
    return Index(store)


def has_index(store: Datastore) -> bool:
    """Whether there is one, up to date or not."""
    return (store.folder / NOTE).is_file()


class Index:
    """The index beside a store, mapped into memory. probes: lists that each query looks at.

    Raises DataError where there is none, or an older one than the store.
    """

    def __init__(self, store: Datastore, probes: int = PROBES) -> None:
        faiss, note = _faiss(), _note(store)
        if note["entries"] != store.count:
            raise DataError(
                f"the search index of {store.folder} knows {note['entries']:,} of {store.count:,} entries: bring it up to date "
                "with `formers datastore build --index`, or search with --exact"
            )
        if probes < 1:
            raise DataError(f"a query that looks at {probes} lists finds nothing; give at least 1")
        self.store, self.kind = store, note["kind"]
        self._index = faiss.read_index(str(store.folder / INDEX), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        self._index.nprobe = min(probes, self._index.nlist)

    def search(self, queries: Tensor, k: int, own: Tensor | None = None) -> Found:
        """As `exact`, but that neighbours in other lists than those looked at are missed."""
        queries = checked(self.store, queries, k)
        wanted = (k if self.kind == "flat" else WIDER * k) + (own is not None)
        _, labels = self._index.search(np.ascontiguousarray(queries.numpy()), min(wanted, self.store.count))
        entries = torch.from_numpy(labels.astype(np.int64))
        if own is not None:
            entries = entries.masked_fill(entries == own[:, None], -1)
        return measured(self.store, queries, entries, k)


def lists_for(count: int) -> int:
    """About the square root of the number of keys, a power of 2, and never so many that lists are nearly empty."""
    return max(1, min(1 << round(math.log2(math.sqrt(count))), count // PER_LIST))


def _fill(store: Datastore, index: Any, kind: str, tick: Tick) -> None:
    """Put in what the index does not know yet, and write it."""
    step = max(1, BLOCK // (4 * store.dim))
    for first in range(index.ntotal, store.count, step):
        stop = min(first + step, store.count)
        index.add(store.keys(first, stop).numpy())
        tick(stop / store.count)
    note = store.folder / NOTE
    note.unlink(missing_ok=True)  # there is no index until the new one is whole
    _write(index, store.folder / INDEX)
    write_json(note, {"kind": kind, "entries": store.count})


def _write(index: Any, path: Path) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        _faiss().write_index(index, str(part))
        part.replace(path)
    except RuntimeError as error:
        raise DataError(f"cannot write {path}: {str(error).strip().splitlines()[-1]}") from error
    finally:
        part.unlink(missing_ok=True)


def _note(store: Datastore) -> dict[str, Any]:
    if not has_index(store):
        raise DataError(
            f"{store.folder} has no search index: make one with `formers datastore build --index`, or search with --exact"
        )
    return read_json(store.folder / NOTE)


def _code(dim: int) -> int:
    """Bytes of a code: the most parts of equal width that a key splits into."""
    return max(parts for parts in range(1, min(CODE, dim) + 1) if dim % parts == 0)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise DataError(
            "approximate search needs faiss: pip install 'formers[faiss]', or search with --exact"
        ) from None
    return faiss
