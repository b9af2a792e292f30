"""Cue recall: the first token of a text says what its last one must tell, and all between them says nothing."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from formers.claim.recall_task import HELD_OUT, LAST, Recall
from formers.tasks.chunked_loss import lost
from formers.train.task import Batch, Loss, Tick, untold


@dataclass(frozen=True)
class Cue(Recall):
    """A `Task`: Recall's texts with the marker at the first place, read in one pass, so that gradients go all the way."""

    length: int = 24
    segment: int = 1
    markers: int = 2
    fillers: int = 8

    def loss(self, model: Any, batch: Batch) -> Loss:
        return lost(model, batch["targets"], batch["inputs"], logits_at=LAST)

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """accuracy: the share of texts whose cue is told."""
        unseen, right = replace(self, seed=HELD_OUT), 0.0
        for number in range(self.evaluated):
            batch = unseen.batch(number)
            with torch.no_grad():
                out = model(batch["inputs"], logits_at=LAST, remember=False)
            right += (out.logits.argmax(-1) == batch["targets"]).double().mean().item()
            tick((number + 1) / self.evaluated)
        return {"accuracy": right / self.evaluated}
