"""Facts: tokens that state a value of a key, and questions for the value of a key, near by or further back than any window.

Stored keys have no gradient, so far questions alone teach nothing: a key that nobody finds is never made findable. So in half
of the texts a question stands in the segment of its fact, where local attention learns to find it by the same queries and
keys.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from formers.block import Block
from formers.call import Layer
from formers.claim.pupil import Pupil
from formers.data.chance import generator
from formers.errors import ConfigError
from formers.feedforward import MLP
from formers.head import Untied
from formers.model import Decoder
from formers.spec import Spec
from formers.tasks.chunked_loss import lost
from formers.train.task import Batch, Loss, Size, Tick, untold

HELD_OUT = -1  # the seed of texts that no training draws


@dataclass(frozen=True)
class Facts:
    """A `Task` of texts of whole segments. A text draws a value for each key; facts stand anywhere in their segment before
    its last places, where questions stand, so nothing but what it says leads from a question to its fact.

    keys, values: how many of each there are; a fact is one token for its key and its value, a question one for its key.
    segment: tokens. stated, asked: facts and questions of a segment. far: segments of filler between that of the facts and
    that of the questions in half of the texts; in the other half every segment has both. fillers: how many other tokens
    there are. rows: texts in a batch, half of either kind. evaluated: batches that `evaluate` looks at.
    """

    keys: int = 16
    values: int = 8
    segment: int = 32
    stated: int = 8
    asked: int = 4
    far: int = 3
    fillers: int = 8
    rows: int = 32
    evaluated: int = 16
    seed: int = 0

    @property
    def length(self) -> int:
        return self.segment * (self.far + 2)

    @property
    def vocab(self) -> int:
        return self.values + self.keys * (self.values + 1) + self.fillers

    @property
    def chance(self) -> float:
        """The accuracy of one who guesses."""
        return 1 / self.values

    @property
    def data(self) -> dict[str, str]:
        return {"facts": repr(self)}

    def require(self, spec: Spec) -> None:
        if not isinstance(spec, Decoder) or spec.vocab < self.vocab:
            raise ConfigError(f"questions are answered by a Decoder with vocab={self.vocab}")

    def batch(self, step: int) -> Batch:
        """inputs (B, T), and answers (B, T): the value that a question asks for, -1 elsewhere."""
        drawn, half = generator(self.seed, step), self.rows // 2
        inputs = torch.randint(self.vocab - self.fillers, self.vocab, (self.rows, self.length), generator=drawn)
        answers = torch.full_like(inputs, -1)
        told = torch.randint(self.values, (self.rows, self.keys), generator=drawn)
        for begin in range(0, self.length, self.segment):
            known = self._state(inputs[:half, begin:], told[:half], drawn)
            self._ask(inputs[:half, begin:], answers[:half, begin:], told[:half], known)
        known = self._state(inputs[half:], told[half:], drawn)
        last = self.length - self.segment
        self._ask(inputs[half:, last:], answers[half:, last:], told[half:], known)
        return {"inputs": inputs, "answers": answers}

    def _state(self, inputs: Tensor, told: Tensor, drawn: torch.Generator) -> Tensor:
        """Write the facts of the segment that begins here; the keys that they are of, (B, stated), in random order."""
        rows, room = len(inputs), self.segment - self.asked
        known = torch.rand(rows, self.keys, generator=drawn).argsort(1)[:, : self.stated]
        places = torch.rand(rows, room, generator=drawn).argsort(1)[:, : self.stated]
        inputs.scatter_(1, places, self.values + known * self.values + told.gather(1, known))
        return known

    def _ask(self, inputs: Tensor, answers: Tensor, told: Tensor, known: Tensor) -> None:
        """Write questions for some of these keys at the end of the segment that begins here."""
        asked, ends = known[:, : self.asked], slice(self.segment - self.asked, self.segment)
        inputs[:, ends] = self.values + self.keys * self.values + asked
        answers[:, ends] = told.gather(1, asked)

    def size(self, batch: Batch) -> Size:
        return Size(batch["inputs"].numel(), int((batch["answers"] >= 0).sum()))

    def loss(self, model: Any, batch: Batch) -> Loss:
        asked = batch["answers"] >= 0
        return lost(model, batch["answers"][asked], batch["inputs"], logits_at=asked)

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """near, far: the share of questions that are answered right, in the segment of the fact and beyond the window."""
        unseen, right = replace(self, seed=HELD_OUT), {"near": 0.0, "far": 0.0}
        half = self.rows // 2
        for number in range(self.evaluated):
            batch = unseen.batch(number)
            with torch.no_grad():
                told = model(batch["inputs"], remember=False).logits.argmax(-1)
            hit, asked = told == batch["answers"], batch["answers"] >= 0
            for name, rows in {"near": slice(0, half), "far": slice(half, None)}.items():
                right[name] += hit[rows][asked[rows]].double().mean().item()
            tick((number + 1) / self.evaluated)
        return {name: total / self.evaluated for name, total in right.items()}


@dataclass(frozen=True)
class Answerer(Pupil):
    """The size of a decoder that answers, and how long it learns."""

    task: Facts = Facts()
    dim: int = 64
    hidden: int = 128
    steps: int = 1000
    rate: float = 3e-3

    def spec(self, attention: tuple[Layer, ...]) -> Decoder:
        """A decoder of these layers of attention."""
        blocks = tuple(Block((layer, MLP(self.hidden))) for layer in attention)
        return Decoder("answerer", self.task.vocab, self.dim, blocks, head=Untied())


TINY = Answerer(
    Facts(keys=4, values=3, segment=8, stated=3, asked=2, far=2, fillers=2, rows=4, evaluated=2),
    dim=16,
    hidden=16,
    steps=2,
)
