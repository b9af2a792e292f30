"""Steps of training without data: random tokens, in rows as long as they can be."""

from typing import Any

import torch
from torch import Tensor, nn

from formers.carried import carries
from formers.encoder_decoder import EncoderDecoder
from formers.model import Encoder
from formers.spec import Spec
from formers.tasks.chunked_loss import lost
from formers.train import TrainSpec
from formers.train.task import Batch, Loss, Size, Tick, untold

HIDDEN = 0.15  # of the tokens of an encoder's row, as in `tasks.Masked`


class Rehearsal:
    """Next tokens for a decoder, hidden tokens for an encoder, targets for an encoder-decoder; a `Task`.

    Rows have no padding and no retrieved tokens. It costs what a step of the real task costs at most.
    """

    data: dict[str, str] = {}  # noqa: RUF012 - there is none

    def __init__(self, model: Any, spec: TrainSpec) -> None:
        self._model, self._spec = model, spec

    def require(self, spec: Spec) -> None:
        """Every model can rehearse."""

    def batch(self, step: int) -> Batch:
        """inputs and targets (B, T), and what the kind of the model needs beside them."""
        model, shape = self._model, (self._spec.batch, self._spec.length)
        tokens = _random(model.vocab, shape, step)
        batch = {"inputs": tokens, "targets": _random(model.vocab, shape, step + 1)}
        if isinstance(model, EncoderDecoder):
            batch["source"] = _random(model.source.vocab, shape, step)
            batch["mask"] = torch.ones(shape, dtype=torch.bool)
        elif isinstance(model, Encoder):
            batch["mask"] = torch.zeros(shape, dtype=torch.bool)
            batch["mask"][:, :: round(1 / HIDDEN)] = True
        return batch

    def size(self, batch: Batch) -> Size:
        targets = int(batch["mask"].sum()) if "mask" in batch else batch["targets"].numel()
        return Size(batch["inputs"].numel(), targets)

    def loss(self, model: Any, batch: Batch, state: Any = None) -> Loss:
        named: dict[str, Any] = {"chunk": self._spec.loss_chunk, "smoothing": self._spec.label_smoothing}
        inputs, targets, mask = batch["inputs"], batch["targets"], batch.get("mask")
        if isinstance(self._model, EncoderDecoder):
            masks: dict[str, Any] = {"source_mask": mask, "mask": mask, "logits_at": mask}
            return lost(model, targets[mask], batch["source"], inputs, **masks, **named)
        if mask is not None:
            return lost(model, targets[mask], inputs, logits_at=mask, **named)
        if carries(self._model):
            named |= {"state": state, "remember": True}
        return lost(model, targets, inputs, **named)

    def continues(self, step: int) -> bool:
        """Where the model carries a state, its rows never begin anew."""
        return carries(self._model)

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """Nothing is held out."""
        return {}


def _random(vocab: int, shape: tuple[int, int], seed: int) -> Tensor:
    return torch.randint(vocab, shape, generator=torch.Generator().manual_seed(seed))
