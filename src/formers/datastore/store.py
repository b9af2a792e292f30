"""A datastore on disk: the key of every context of some texts, and the token that followed it."""

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from formers.data.atomic import read_json, write_json
from formers.data.tokenizer import Tokenizer
from formers.data.tokens import Ids
from formers.datastore.keys import Tap
from formers.errors import DataError
from formers.train.weights import unique_tensors

FORMAT = "formers datastore 1"
HEADER, KEYS, VALUES = "store.json", "keys.bin", "values.bin"
UNFINISHED = "unfinished.json"
Raw = npt.NDArray[Any]
# How keys are kept: as numpy maps the file, and as torch reads what is mapped.
PRECISIONS: dict[str, tuple[str, torch.dtype]] = {
    "fp32": ("<i4", torch.float32),
    "fp16": ("<i2", torch.float16),
    "bf16": ("<i2", torch.bfloat16),
}
VALUE = np.dtype("<i4")


@dataclass(frozen=True)
class Header:
    """What a datastore is of.

    dim: of the keys; precision: that they are kept in; place: where in the model they were read. model: the fingerprint of
    its weights; run: where the model lay. tokenizer: its fingerprint; vocab: how many ids there are. length, overlap: of
    the windows that texts were read in. texts: the fingerprint of each text, and how many entries it has, in their order.
    """

    dim: int
    precision: str
    place: str
    model: str
    run: str
    tokenizer: str
    vocab: int
    length: int
    overlap: int
    texts: tuple[tuple[str, int], ...] = ()

    @property
    def count(self) -> int:
        """How many entries there are."""
        return sum(count for _, count in self.texts)

    @property
    def key_bytes(self) -> int:
        """Of one key."""
        return self.dim * np.dtype(PRECISIONS[self.precision][0]).itemsize

    def with_text(self, fingerprint: str, count: int) -> "Header":
        return replace(self, texts=(*self.texts, (fingerprint, count)))

    def as_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def of(cls, content: dict[str, Any], where: Path) -> "Header":
        """Raises DataError for what is no header."""
        try:
            known = {name: content[name] for name in cls.__dataclass_fields__}
            header = cls(**known | {"texts": tuple((str(text), int(count)) for text, count in known["texts"])})
            if content["format"] != FORMAT or header.precision not in PRECISIONS or header.dim < 1:
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{where} is no header of a datastore that this version writes; build it again") from None
        return header


class Datastore:
    """A whole store, opened for reading: `values` is a memory map, keys are mapped or read where they are asked for.

    Raises DataError where there is none, or one that is unfinished, empty, or damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.header = _read_header(self.folder)
        self.count, self.dim = self.header.count, self.header.dim
        _require_size(self.folder / KEYS, self.count * self.header.key_bytes)
        _require_size(self.folder / VALUES, self.count * VALUE.itemsize)
        self.values: npt.NDArray[np.int32] = np.memmap(self.folder / VALUES, dtype=VALUE, mode="r", shape=(self.count,))

    def keys(self, first: int, stop: int) -> Tensor:
        """The keys of some entries that follow one another, (stop - first, dim) fp32. Pages of fp32 keys are the file's own,
        and are out of memory when the tensor is gone."""
        raw, dtype = PRECISIONS[self.header.precision]
        # mode "c": a tensor wants memory that could be written; nothing ever is
        mapped = np.memmap(
            self.folder / KEYS,
            dtype=raw,
            mode="c",
            offset=first * self.header.key_bytes,
            shape=(stop - first, self.dim),
        )
        return torch.from_numpy(mapped).view(dtype).float()

    def keys_at(self, entries: Tensor) -> Tensor:
        """The keys of entries (n,) int64 in any order, (n, dim) fp32.

        Read and not mapped: with one key of a mapped file come as many of its neighbours as the system likes, up to 2 MiB.
        """
        raw, dtype = PRECISIONS[self.header.precision]
        found, size, wanted = np.empty((len(entries), self.dim), dtype=raw), self.header.key_bytes, entries.numpy()
        with (self.folder / KEYS).open("rb", buffering=0) as file:
            for row in np.argsort(wanted, kind="stable"):  # the disk is read forwards
                file.seek(int(wanted[row]) * size)
                if file.readinto(found[row].data) != size:
                    raise DataError(f"{self.folder / KEYS} ends within a key: build the store again")
        return torch.from_numpy(found).view(dtype).float()

    def require(self, model: nn.Module, tokenizer: Tokenizer) -> None:
        """Raise DataError unless this store is of that model and that tokenizer."""
        spec: Any = model.spec
        dim = Tap(model).dim
        if self.header.tokenizer != tokenizer.fingerprint:
            raise DataError(
                f"{self.folder} was built with another tokenizer than {tokenizer.name} ({tokenizer.vocab} ids): its tokens "
                "mean something else; build a store with this model"
            )
        if self.header.dim != dim:
            raise DataError(
                f"{self.folder} has keys of {self.header.dim} numbers, and {spec.name} makes keys of {dim}: "
                "build a store with this model"
            )
        if self.header.model != fingerprint_of_model(model):
            raise DataError(
                f"{self.folder} was built with other weights ({self.header.run}), and its keys mean nothing to this model: "
                "build a store with it"
            )

    def require_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Raise DataError unless the tokens are that tokenizer's."""
        if self.header.tokenizer != tokenizer.fingerprint:
            raise DataError(
                f"the tokens of {self.folder} are another tokenizer's than {tokenizer.name} ({tokenizer.vocab} ids): train "
                f"with that of {self.header.run}"
            )

    def own_entries(self, predicted: Ids, end: int | None) -> npt.NDArray[np.int64]:
        """The entry that each token of a text itself has in the store, -1 where it has none.

        predicted: (n,), as a `Reading` has them. Documents, told apart by the id `end`, are looked up one by one, so a
        text may be part of what is stored, and in another order. The same document twice is matched in order.
        """
        stored = _documents(self.values, end)
        own = np.full(len(predicted), -1, dtype=np.int64)
        for digest, places in _documents(predicted, end).items():
            known = stored.get(digest, [])
            for number, (first, stop) in enumerate(places):
                if known:
                    begin = known[min(number, len(known) - 1)][0]
                    own[first:stop] = np.arange(begin, begin + stop - first)
        return own


def fingerprint_of_model(model: nn.Module) -> str:
    """The SHA-256 of a model's tensors, their names and shapes."""
    sha = hashlib.sha256()
    for name, tensor in unique_tensors(model).items():
        sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        sha.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def fingerprint_of_text(tokens: Ids) -> str:
    """The SHA-256 of the tokens of a text, whatever type they are kept in."""
    sha = hashlib.sha256()
    for first in range(0, len(tokens), 1 << 20):
        sha.update(tokens[first : first + (1 << 20)].astype(VALUE).tobytes())
    return sha.hexdigest()


def is_finished(folder: Path) -> bool:
    """Whether there is a store that can be opened."""
    return (folder / HEADER).is_file()


def write_header(folder: Path, header: Header) -> None:
    """From now on the store has the entries that the header tells of."""
    write_json(folder / HEADER, header.as_json())


def _read_header(folder: Path) -> Header:
    if not (folder / HEADER).is_file():
        if (folder / UNFINISHED).is_file():
            content = read_json(folder / UNFINISHED)
            done, count = content.get("done", 0), content.get("count", 0)
            raise DataError(
                f"the build of {folder} was interrupted after {done:,} of {count:,} entries: run it again, and it goes on"
            )
        raise DataError(f"{folder} holds no datastore; build one with: formers datastore build RUN --out {folder}")
    header = Header.of(read_json(folder / HEADER), folder / HEADER)
    if not header.count:
        raise DataError(f"{folder} is empty: build it again, on text")
    return header


def _require_size(path: Path, size: int) -> None:
    """More may stand behind, of text whose adding was interrupted."""
    found = path.stat().st_size if path.is_file() else 0
    if found < size:
        raise DataError(f"{path} is damaged: it has {found:,} bytes where {size:,} were written; build the store again")


def _documents(tokens: Ids, end: int | None) -> dict[bytes, list[tuple[int, int]]]:
    """Where each document of a text stands, by what is in it."""
    ends = [] if end is None else (np.flatnonzero(np.asarray(tokens) == end) + 1).tolist()
    stops = ends if ends and ends[-1] == len(tokens) else [*ends, len(tokens)]
    found: dict[bytes, list[tuple[int, int]]] = {}
    for first, stop in zip([0, *stops], stops, strict=False):
        digest = hashlib.sha256(np.asarray(tokens[first:stop]).astype(VALUE).tobytes()).digest()
        found.setdefault(digest, []).append((first, stop))
    return found
