"""Sentences of which some hold a marker, asked about one by one: is there one here, or which one is there anywhere?

The answer is read at each sentence. To tell which marker there is anywhere, it must travel from one sentence to all.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from formers.attention import GlobalLocal, GlobalLocalAttention
from formers.attention.patterns.global_local import Piece
from formers.block import Block, stack
from formers.claim.pupil import Pupil
from formers.data.batches import side_by_side
from formers.data.chance import generator
from formers.errors import ConfigError
from formers.feedforward import MLP
from formers.head import Untied
from formers.model import Encoder
from formers.position import RelativeLabels
from formers.spec import Spec
from formers.tasks.chunked_loss import lost
from formers.train.task import Batch, Loss, Size, Tick, untold

SUMMARY = 0  # the symbol of a global token, and the answer "none here"
HELD_OUT = -1  # the seed of texts that no training draws


@dataclass(frozen=True)
class Sentences:
    """A `Task`. sentences: in a text, of `words` symbols each. markers: symbols 1 .. markers; one of them stands in
    `holders` sentences of a text, at random places. fillers: how many other symbols there are.

    anywhere: at every sentence the text's marker is to be told; else at those that hold it, and SUMMARY at the others.
    summed_up: whether each sentence has a global token, where the answer is read; else its first symbol is asked.
    texts: how many there are to learn from, None: no end of them. rows: texts in a batch. evaluated: batches that
    `evaluate` looks at.
    """

    sentences: int = 64
    words: int = 8
    markers: int = 12
    holders: int = 4
    fillers: int = 20
    anywhere: bool = True
    summed_up: bool = True
    texts: int | None = None
    rows: int = 16
    evaluated: int = 4
    seed: int = 0

    @property
    def vocab(self) -> int:
        return 1 + self.markers + self.fillers

    @property
    def length(self) -> int:
        """Tokens that a model reads."""
        return self.sentences * (self.words + self.summed_up)

    @property
    def data(self) -> dict[str, str]:
        return {"sentences": repr(self)}

    def require(self, spec: Spec) -> None:
        if not isinstance(spec, Encoder) or spec.vocab < self.vocab:
            raise ConfigError(f"sentences are asked about by an Encoder with vocab={self.vocab}")

    def batch(self, step: int) -> Batch:
        """inputs (B, T), their marks, and targets (B, sentences)."""
        drawn = generator(self.seed, step if self.texts is None else step % (self.texts // self.rows))
        shape = (self.rows, self.sentences)
        words = torch.randint(1 + self.markers, self.vocab, (*shape, self.words), generator=drawn)
        marker = torch.randint(1, 1 + self.markers, (self.rows, 1), generator=drawn)
        holds = torch.rand(shape, generator=drawn).argsort(1) < self.holders
        place = torch.randint(self.words, (*shape, 1), generator=drawn)
        held = torch.where(holds, marker, words.gather(2, place)[..., 0])
        long = words.scatter(2, place, held[..., None]).flatten(1)
        targets = marker.expand(shape) if self.anywhere else torch.where(holds, marker, SUMMARY)
        if not self.summed_up:
            return {"inputs": long, "targets": targets}
        segment = torch.arange(self.sentences).repeat_interleave(self.words).expand(self.rows, -1)
        both = side_by_side(long, segment, SUMMARY)
        return {"inputs": both.tokens, "targets": targets} | both.marks

    def size(self, batch: Batch) -> Size:
        return Size(batch["inputs"].numel(), batch["targets"].numel())

    def loss(self, model: Any, batch: Batch) -> Loss:
        return lost(model, batch["targets"], batch["inputs"], logits_at=self._answers, marks=marks(batch))

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """accuracy: the share of sentences at which the answer is right."""
        unseen, right = replace(self, seed=HELD_OUT, texts=None), 0.0
        for number in range(self.evaluated):
            batch = unseen.batch(number)
            with torch.no_grad():
                out = model(batch["inputs"], marks=marks(batch), logits_at=self._answers, remember=False)
            right += (out.logits.argmax(-1) == batch["targets"]).double().mean().item()
            tick((number + 1) / self.evaluated)
        return {"accuracy": right / self.evaluated}

    @property
    def _answers(self) -> slice:
        """Where each sentence is answered for."""
        return slice(0, self.sentences) if self.summed_up else slice(0, None, self.words)


@dataclass(frozen=True)
class Reader(Pupil):
    """The size of an encoder that answers, and how long it learns. radius: to which long tokens see each other."""

    task: Sentences = Sentences()
    dim: int = 32
    heads: int = 2
    depth: int = 2
    hidden: int = 64
    radius: int = 4
    steps: int = 250
    rate: float = 5e-3

    def spec(self, attention: tuple[Piece, ...]) -> Encoder:
        """An encoder of a long and a global input. attention: the pieces in which segments are kept apart."""
        layer = GlobalLocalAttention(self.heads, GlobalLocal(self.radius, attention), RelativeLabels())
        blocks = stack(Block((layer, MLP(self.hidden))), times=self.depth)
        return Encoder("reader", self.task.vocab, self.dim, blocks, head=Untied())

    def accuracy(self, model: nn.Module) -> float:
        """The share of sentences at which the answer is right."""
        return self.task.evaluate(model)["accuracy"]


def marks(batch: Batch) -> dict[str, Tensor]:
    """What the model is told of the tokens."""
    return {name: batch[name] for name in ("global", "segment") if name in batch}
