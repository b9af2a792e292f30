"""The package task: windows of 128 characters of Python's standard library, and which of its packages each is from.

There is nothing to download: every machine with Python has the text. Whole files are held out, so that a model cannot know
a window by its neighbours.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from formers.block import Block
from formers.call import Layer
from formers.claim.pupil import Pupil
from formers.data.chance import generator
from formers.data.source.library import standard_library
from formers.data.source.reading import read_text
from formers.embedding import Embedding
from formers.errors import ConfigError, DataError
from formers.feedforward import MLP
from formers.head import Untied
from formers.model import Encoder
from formers.position import Learned
from formers.spec import Spec
from formers.tasks.chunked_loss import lost
from formers.train.task import Batch, Loss, Size, Tick, untold

CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
ASK = len(CHARACTERS)  # stands in front of the text; the answer is read there
PACKAGES = ("asyncio", "email", "importlib", "multiprocessing", "unittest", "xml")
NTH = 5  # of so many files of a package one is held out
HELD_OUT = -1  # the seed of windows that no training draws
FIRST = slice(0, 1)


@dataclass(frozen=True)
class Packages:
    """A `Task`. packages: that windows are told apart by. window: characters of a text, behind one token that asks.

    labelled: windows that there are to learn from, drawn once. rows: texts in a batch. evaluated: batches of windows of
    held-out files that `evaluate` looks at.
    """

    packages: tuple[str, ...] = PACKAGES
    window: int = 128
    labelled: int = 2000
    rows: int = 32
    evaluated: int = 32
    seed: int = 0

    @property
    def vocab(self) -> int:
        return ASK + 1

    @property
    def length(self) -> int:
        """Tokens that a model reads."""
        return 1 + self.window

    @property
    def chance(self) -> float:
        """The accuracy of one who guesses."""
        return 1 / len(self.packages)

    @property
    def data(self) -> dict[str, str]:
        return {"packages": repr(self)}

    def require(self, spec: Spec) -> None:
        if not isinstance(spec, Encoder) or spec.vocab < self.vocab:
            raise ConfigError(f"packages are told by an Encoder with vocab={self.vocab} that sees the whole text")

    def batch(self, step: int) -> Batch:
        """inputs (B, T), targets (B, 1): some of the labelled windows."""
        inputs, targets = drawn(self.packages, self.window, self.labelled, self.seed)
        some = torch.randint(self.labelled, (self.rows,), generator=generator(self.seed, step))
        return {"inputs": inputs[some], "targets": targets[some]}

    def size(self, batch: Batch) -> Size:
        return Size(batch["inputs"].numel(), batch["targets"].numel())

    def loss(self, model: Any, batch: Batch) -> Loss:
        return lost(model, batch["targets"], batch["inputs"], logits_at=FIRST)

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """accuracy: the share of windows of held-out files whose package is told."""
        count = self.evaluated * self.rows
        inputs, targets = drawn(self.packages, self.window, count, HELD_OUT)
        right = 0
        for number, (some, wanted) in enumerate(zip(inputs.split(self.rows), targets.split(self.rows), strict=True), 1):
            with torch.no_grad():
                told = model(some, logits_at=FIRST, remember=False).logits.argmax(-1)
            right += int((told == wanted).sum())
            tick(number / self.evaluated)
        return {"accuracy": right / count}


@cache
def drawn(packages: tuple[str, ...], window: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Windows (count, 1 + window) behind a token that asks, and their packages (count, 1), each as often as the others.

    seed: HELD_OUT draws from files that no other seed draws from.
    """
    targets = torch.arange(count)[:, None] % len(packages)
    inputs = torch.full((count, 1 + window), ASK)
    chance = generator(seed, 0)
    for number, package in enumerate(packages):
        text, rows = characters(package, held_out=seed == HELD_OUT), slice(number, None, len(packages))
        starts = torch.randint(len(text) - window, (len(inputs[rows]), 1), generator=chance)
        inputs[rows, 1:] = text[starts + torch.arange(window)]
    return inputs, targets


@cache
def characters(package: str, *, held_out: bool) -> Tensor:
    """The text of a package's files, those that are held out or all others, as places in CHARACTERS.

    Raises DataError where this Python has not so many files of it.
    """
    library = standard_library()
    files = [file for file in library.found if file.relative_to(Path(library.place)).parts[0] == package]
    if len(files) < NTH:
        raise DataError(f"this Python came without the sources of {package} in {library.place}")
    chosen = [file for number, file in enumerate(files) if (number % NTH == NTH - 1) == held_out]
    known = {character: place for place, character in enumerate(CHARACTERS)}
    text = "\n".join(read_text(file) for file in chosen)
    return torch.tensor([known[character] for character in text if character in known])


@dataclass(frozen=True)
class Librarian(Pupil):
    """The size of an encoder that tells packages, and how long it learns."""

    task: Packages = Packages()
    dim: int = 96
    depth: int = 2
    hidden: int = 384
    steps: int = 600
    rate: float = 2e-3

    def spec(self, attention: tuple[Layer, ...]) -> Encoder:
        """An encoder with that in every block, in front of the feed-forward; nothing: a feed-forward alone."""
        block = Block((*attention, MLP(self.hidden)))
        embedding = Embedding(Learned(self.task.length))
        return Encoder("librarian", self.task.vocab, self.dim, (block,) * self.depth, embedding, head=Untied())

    def accuracy(self, model: nn.Module) -> float:
        """The share of windows of held-out files whose package is told."""
        return self.task.evaluate(model)["accuracy"]


TINY = Librarian(
    replace(Packages(), packages=("email", "xml"), labelled=8, rows=4, evaluated=2), dim=16, hidden=16, steps=2
)
