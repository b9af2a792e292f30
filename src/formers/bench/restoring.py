"""Truecasing: texts without capitals, which a model gives back. Most bytes are plain to see, and some have to be known."""

from typing import Any

import torch
from torch import Tensor, nn

from formers.data.batches import Packed
from formers.errors import ConfigError
from formers.model import Decoder
from formers.spec import Spec
from formers.tasks import Prepared
from formers.tasks.chunked_loss import lost
from formers.train import TrainSpec
from formers.train.task import Batch, Loss, Size, Tick, device_of, untold


def small(texts: Tensor) -> Tensor:
    """Ids of bytes with small letters for the capitals of ASCII; all else stays."""
    return torch.where((texts >= ord("A")) & (texts <= ord("Z")), texts + ord("a") - ord("A"), texts)


class Restoring:
    """A text in small letters, and behind it the text itself, which alone is learned; a `Task`.

    prepared: text as bytes. width: bytes of a text. spec: rows of a batch and the seed; a row is 2 width - 1 tokens long.
    """

    def __init__(self, prepared: Prepared, width: int, spec: TrainSpec) -> None:
        self._prepared, self._width, self._batch = prepared, width, spec.batch
        self._texts = Packed(prepared.train, width - 1, spec.batch, spec.seed)
        self._answer = slice(width - 1, None)  # the last byte of the small letters foretells the first of the answer

    @property
    def data(self) -> dict[str, str]:
        return self._prepared.fingerprints

    def require(self, spec: Spec) -> None:
        if not isinstance(spec, Decoder) or spec.vocab < self._prepared.tokenizer.vocab:
            raise ConfigError(f"capitals are restored by a Decoder with vocab={self._prepared.tokenizer.vocab}")

    def batch(self, step: int) -> Batch:
        """inputs (B, 2 width - 1) and targets (B, width), of the answer."""
        return questions(self._texts.at(step - 1))

    def size(self, batch: Batch) -> Size:
        return Size(batch["inputs"].numel(), batch["targets"].numel())

    def loss(self, model: Any, batch: Batch) -> Loss:
        return lost(model, batch["targets"], batch["inputs"], logits_at=self._answer)

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """accuracy: the share of held-out bytes that are the likeliest behind the right ones before them."""
        tokens = torch.from_numpy(self._prepared.held_out.tokens[:limit].astype("int64"))
        texts = tokens[: len(tokens) // self._width * self._width].view(-1, self._width)
        right = []
        for rows in texts.split(self._batch):
            batch = questions(rows.to(device_of(model)))
            with torch.no_grad():
                logits = model(batch["inputs"], logits_at=self._answer, remember=False).logits
            right.append((logits.argmax(-1) == batch["targets"]).double())
            tick(sum(map(len, right)) / len(texts))
        return {"accuracy": torch.cat(right).mean().item()}


def questions(texts: Tensor) -> Batch:
    """What is read and what is to be foretold, of texts (B, width)."""
    return {"inputs": torch.cat([small(texts), texts[:, :-1]], 1), "targets": texts}
