"""Text of two domains, a small language model of one of them, and windows of either that it is tried on."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.data.chance import below
from formers.data.source import documents, standard_library
from formers.data.tokenizer import CharTokenizer
from formers.data.tokens import Ids, write_tokens
from formers.datastore import Tap
from formers.errors import DataError
from formers.tasks import Prepared, Task
from formers.train import AdamW, CosineDecay, TrainSpec
from formers.train.update import Updater

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))  # printable ASCII
TOKENIZER = CharTokenizer(ALPHABET, special=())
HEADERS = (".h", ".hpp", ".cuh")
HELD_OUT = 1_000  # characters that a task is given to evaluate on, which the claims do by windows instead
AT_ONCE = 16  # windows that a model reads side by side


@dataclass(frozen=True)
class Sizes:
    """learned: characters to learn from; stored: those of them that are entries of a store, few: of a smaller one;
    windows of `length` characters, the second half of which is counted."""

    learned: int = 2_000_000
    stored: int = 300_000
    few: int = 30_000
    windows: int = 320
    length: int = 128
    batch: int = 32
    steps: int = 900
    more: int = 600
    dim: int = 96
    k: int = 32

    @property
    def model(self) -> dict[str, Any]:
        """Of a member of the family."""
        sizes = {"vocab": TOKENIZER.vocab, "dim": self.dim, "depth": 2, "heads": 4, "hidden": 4 * self.dim}
        return sizes | {"segment": self.length // 2, "memory": self.length // 2, "dropout": 0.0}


TINY = Sizes(4000, 600, 200, windows=4, length=16, batch=2, steps=4, more=4, dim=16, k=4)


@dataclass(frozen=True)
class Domain:
    """Characters of a domain as ids: to learn from or to store, and held out."""

    train: Ids
    held_out: Ids

    def windows(self, sizes: Sizes) -> Tensor:
        """Windows (N, length + 1) int64 of what is held out, drawn at random, always the same."""
        starts = below(len(self.held_out) - sizes.length, 0, np.arange(sizes.windows))
        return torch.from_numpy(self.held_out[starts[:, None] + np.arange(sizes.length + 1)].astype(np.int64))


def python_sources(sizes: Sizes) -> Domain:
    """The sources of Python's own library, the files in an order by seed 0."""
    return _domain(standard_library(), sizes)


def cpp_headers(sizes: Sizes) -> Domain:
    """The C++ headers that come with torch, in such an order. Raises DataError where there are none."""
    folder = Path(torch.__file__).parent / "include"
    files = sorted(file for file in folder.rglob("*") if file.suffix in HEADERS) if folder.is_dir() else []
    if not files:
        raise DataError(f"this torch came without its headers in {folder}: install its usual package")
    return _domain(documents(files), sizes)


def learn(model: nn.Module, task: Task, sizes: Sizes, steps: int, rate: float, tick: Callable[[], object]) -> nn.Module:
    """Train a model by a task, in place."""
    spec = training(sizes, steps, rate)
    torch.manual_seed(spec.seed)
    update = Updater(model.train(), task, spec, spec.optimizer.build(model), torch.device("cpu"))
    for step in range(1, steps + 1):
        update(step)
        tick()
    return model.eval()


def training(sizes: Sizes, steps: int, rate: float = 3e-3) -> TrainSpec:
    """Rows of one segment, whose state is carried."""
    warm_up = min(100, steps // 2)
    return TrainSpec(steps, sizes.batch, sizes.length // 2, optimizer=AdamW(rate), schedule=CosineDecay(warm_up, 0.0))


def prepared(folder: Path, domain: Domain, limit: int | None = None) -> Prepared:
    """A domain's text, or its beginning, as a task takes it."""
    train, rest = (
        write_tokens(folder / f"{name}.tokens", [ids], TOKENIZER.vocab)
        for name, ids in (("train", domain.train[:limit]), ("held_out", domain.held_out[:HELD_OUT]))
    )
    return Prepared(TOKENIZER, train, rest, {})


def keys_of(model: Any, windows: Tensor) -> Tensor:
    """The keys (N T/2, dim) of the contexts of all that is counted in windows (N, T + 1)."""
    half = (windows.shape[1] - 1) // 2
    with torch.inference_mode(), Tap(model).open() as tap:
        parts = (
            tap.take(model(part[:, :-1], remember=False))[:, half:].flatten(0, 1) for part in windows.split(AT_ONCE)
        )
        return torch.cat(list(parts)).clone()


def nats_of(model: Any, windows: Tensor, retrieved: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """What a model loses on each character that is counted, (N T/2,), and its gate there.

    retrieved (N T/2, k): what was found for these; nothing is for the characters before them.
    """
    half, nats, gates = (windows.shape[1] - 1) // 2, [], []
    for number, part in enumerate(windows.split(AT_ONCE)):
        given = {}
        if retrieved is not None:
            first = number * AT_ONCE * half
            near = retrieved[first : first + len(part) * half].view(len(part), half, -1)
            given = {"retrieved": F.pad(near, (0, 0, half, 0), value=-1)}
        with torch.inference_mode():
            out = model(part[:, :-1], logits_at=slice(half, None), remember=False, **given)
        targets = part[:, half + 1 :]
        nats.append(F.cross_entropy(out.logits.flatten(0, 1), targets.flatten(), reduction="none"))
        gates += [gate[:, half:].flatten() for gate in out.records.get("gate", ())]
    return torch.cat(nats).clone(), torch.cat(gates).clone() if gates else None


def targets_of(windows: Tensor) -> Tensor:
    """The characters that are counted, (N T/2,)."""
    return windows[:, (windows.shape[1] - 1) // 2 + 1 :].flatten()


def _domain(texts: Iterable[str], sizes: Sizes) -> Domain:
    """A tenth of the text that is read is held out, its end; only what the alphabet has is kept."""
    order = list(texts)
    random.Random(0).shuffle(order)
    wanted, kept, size = sizes.learned * 10 // 9, [], 0
    known = set(ALPHABET)
    for text in order:
        clean = "".join(letter for letter in text if letter in known)
        kept.append(clean)
        size += len(clean)
        if size >= wanted:
            break
    ids = np.array(TOKENIZER.encode("".join(kept)[:wanted]), dtype=np.uint16)
    cut = len(ids) * 9 // 10
    return Domain(ids[:cut], ids[cut:])
