"""The copy task "0w0w": a word of random symbols, and the same word again. Kitaev et al. 2020, arXiv:2001.04451, section 5.

Nothing but attention to the first half tells the second: what a kind of attention does not reach, it cannot copy.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from formers.block import Block, stack
from formers.call import Layer
from formers.claim.pupil import Pupil
from formers.data.chance import generator
from formers.embedding import Embedding
from formers.errors import ConfigError
from formers.feedforward import MLP
from formers.head import Untied
from formers.model import Decoder
from formers.position import Learned
from formers.spec import Spec
from formers.tasks.chunked_loss import lost
from formers.train.task import Batch, Loss, Size, Tick, untold

START = 0
ROUNDING = 1e-4  # logits nearer than this are the same
HELD_OUT = -1  # the seed of words that no training draws


@dataclass(frozen=True)
class Copying:
    """A `Task`. symbols: 1 .. symbols stand in words, START before each of the two. word: symbols in a word. rows:
    sequences in a batch. evaluated: batches that `evaluate` looks at."""

    symbols: int = 127
    word: int = 31
    rows: int = 32
    evaluated: int = 16
    seed: int = 0

    @property
    def vocab(self) -> int:
        return self.symbols + 1

    @property
    def length(self) -> int:
        """Tokens that a model reads: all but the last of both halves."""
        return 2 * self.word + 1

    @property
    def data(self) -> dict[str, str]:
        return {"copying": repr(self)}

    def require(self, spec: Spec) -> None:
        if not isinstance(spec, Decoder) or spec.vocab < self.vocab:
            raise ConfigError(f"words of {self.symbols} symbols are copied by a Decoder with vocab={self.vocab}")

    def batch(self, step: int) -> Batch:
        """inputs (B, 2 word + 1) and targets (B, word): only the second half can be foretold."""
        word = torch.randint(1, self.vocab, (self.rows, self.word), generator=generator(self.seed, step))
        half = torch.cat([torch.full((self.rows, 1), START), word], 1)
        return {"inputs": torch.cat([half, half], 1)[:, :-1], "targets": word}

    def size(self, batch: Batch) -> Size:
        return Size(batch["inputs"].numel(), batch["targets"].numel())

    def loss(self, model: Any, batch: Batch) -> Loss:
        return lost(model, batch["targets"], batch["inputs"], logits_at=self._second)

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """accuracy: the share of the second halves' symbols that are foretold; each batch has its own random choices."""
        return {"accuracy": self.accuracy(model, self.in_one_pass, tick)}

    def accuracy(self, model: nn.Module, read: "Reading", tick: Tick = untold) -> float:
        """The same, where the logits of all tokens are found in that manner."""
        right = 0.0
        for number in range(self.evaluated):
            batch = self.held_out(number)
            with torch.no_grad():
                logits = read(model, batch["inputs"], number)[:, -self.word :]
            right += (logits.argmax(-1) == batch["targets"]).double().mean().item()
            tick((number + 1) / self.evaluated)
        return right / self.evaluated

    def held_out(self, number: int) -> Batch:
        """A batch that no training draws."""
        return replace(self, seed=HELD_OUT).batch(number)

    def in_one_pass(self, model: nn.Module, inputs: Tensor, seed: int) -> Tensor:
        """The logits of the second half, (B, word, V)."""
        logits: Tensor = model(inputs, logits_at=self._second, seed=seed, remember=False).logits
        return logits

    @property
    def _second(self) -> slice:
        return slice(self.word + 1, None)


Reading = Callable[[nn.Module, Tensor, int], Tensor]


def token_by_token(model: Any, inputs: Tensor, seed: int) -> Tensor:
    """The logits of all tokens, each read by itself behind the cached others: (B, T, V)."""
    state, found = None, []
    for token in inputs.split(1, 1):
        out = model.step(token, state, seed=seed)
        state = out.state
        found.append(out.logits)
    return torch.cat(found, 1)


@dataclass(frozen=True)
class Copier(Pupil):
    """The size of a model that copies, and how long it learns."""

    task: Copying = Copying()
    dim: int = 64
    depth: int = 2
    hidden: int = 256
    steps: int = 400
    rate: float = 3e-3

    def spec(self, attention: Layer) -> Decoder:
        """A decoder with that attention in every block."""
        blocks = stack(Block((attention, MLP(self.hidden))), times=self.depth)
        return Decoder("copier", self.task.vocab, self.dim, blocks, Embedding(Learned(self.task.length)), head=Untied())

    def accuracy(self, model: nn.Module, attention: Layer | None = None, read: Reading | None = None) -> float:
        """The share of symbols that are right; attention: of like parameters, put in the place of the model's own."""
        model = model if attention is None else self.twin(model, attention)
        return self.task.accuracy(model, read or self.task.in_one_pass)

    def twin(self, model: nn.Module, attention: Layer) -> nn.Module:
        """The same parameters with another attention."""
        other = self.spec(attention).build().eval()
        other.load_state_dict(model.state_dict())
        return other

    @torch.no_grad()
    def moved(self, model: nn.Module, attention: Layer) -> float:
        """The share of earlier tokens whose logits change where the last token is another one."""
        twin, inputs = self.twin(model, attention), self.task.held_out(0)["inputs"]
        other = inputs.clone()
        other[:, -1] = inputs[:, -1] % self.task.symbols + 1
        before, after = (twin(read, remember=False).logits[:, :-1] for read in (inputs, other))
        return ((before - after).abs().amax(-1) > ROUNDING).double().mean().item()


TINY = Copier(Copying(symbols=7, word=7, rows=4, evaluated=2), dim=16, hidden=16, steps=2)
