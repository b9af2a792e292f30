"""Texts with bytes that cannot be read, which a model gives back whole: most are plain to see, some have to be guessed."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from formers.data.batches import Packed
from formers.data.chance import generator
from formers.errors import ConfigError
from formers.model import Decoder
from formers.spec import Spec
from formers.tasks import Prepared
from formers.tasks.chunked_loss import lost
from formers.train import TrainSpec
from formers.train.task import Batch, Loss, Size, Tick, device_of, untold

UNREADABLE = 0x1A  # ASCII's SUB, which stands for a byte that was lost; no text has it otherwise
# Shares of bytes that are lost, each by a coin of its own. A lesson has more of them than a question, to teach more.
LEARNED, ASKED = 0.1, 0.05
HELD_OUT = -1  # the seed of damage that no training draws


class Damaged(NamedTuple):
    """Texts as they are given, and as they were: (N, width) int64 each, bytes."""

    given: Tensor
    whole: Tensor

    @property
    def unreadable(self) -> Tensor:
        return self.given == UNREADABLE


def damage(whole: Tensor, share: float, seed: int, number: int = 0) -> Damaged:
    """The texts, (N, width), a share of whose bytes are unreadable; which ones is a function of seed and number."""
    lot = torch.rand(whole.shape, generator=generator(seed, number))
    return Damaged(torch.where(lot < share, UNREADABLE, whole), whole)


class Restoring:
    """A damaged text, and behind it the whole one, which alone is learned; a `Task`.

    prepared: text as bytes. width: bytes of a text. spec: rows of a batch and the seed; a row is 2 width - 1 tokens long.
    """

    def __init__(self, prepared: Prepared, width: int, spec: TrainSpec) -> None:
        self._prepared, self._width, self._spec = prepared, width, spec
        self._texts = Packed(prepared.train, width - 1, spec.batch, spec.seed)
        self._answer = slice(width - 1, None)  # the last byte of the damaged text foretells the first of the whole one

    @property
    def data(self) -> dict[str, str]:
        return self._prepared.fingerprints

    def require(self, spec: Spec) -> None:
        if not isinstance(spec, Decoder) or spec.vocab < self._prepared.tokenizer.vocab:
            raise ConfigError(f"texts are restored by a Decoder with vocab={self._prepared.tokenizer.vocab}")

    def batch(self, step: int) -> Batch:
        """inputs (B, 2 width - 1) and targets (B, width), of the whole text."""
        return _asked(damage(self._texts.at(step - 1), LEARNED, self._spec.seed, step))

    def size(self, batch: Batch) -> Size:
        return Size(batch["inputs"].numel(), batch["targets"].numel())

    def loss(self, model: Any, batch: Batch) -> Loss:
        return lost(model, batch["targets"], batch["inputs"], logits_at=self._answer)

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """accuracy: the share of held-out unreadable bytes that are the likeliest behind the right ones before them."""
        texts = damage(texts_of(self._prepared.held_out.tokens[:limit], self._width), ASKED, HELD_OUT)
        right = []
        for start in range(0, len(texts.whole), self._spec.batch):
            some = Damaged(*(side[start : start + self._spec.batch].to(device_of(model)) for side in texts))
            with torch.no_grad():
                logits = model(_asked(some)["inputs"], logits_at=self._answer, remember=False).logits
            right.append((logits.argmax(-1) == some.whole)[some.unreadable].double())
            tick((start + len(some.whole)) / len(texts.whole))
        return {"accuracy": torch.cat(right).mean().item()}


def texts_of(tokens: Any, width: int) -> Tensor:
    """(N, width) int64: the tokens of a file cut up, without what is left over."""
    count = len(tokens) // width
    return torch.from_numpy(tokens[: count * width].astype("int64")).view(count, width)


def _asked(texts: Damaged) -> Batch:
    """What is read, and what is to be foretold."""
    return {"inputs": torch.cat([texts.given, texts.whole[:, :-1]], 1), "targets": texts.whole}
