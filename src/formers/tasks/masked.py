"""Masked language modelling: fill in hidden tokens from both sides. Devlin et al. 2018, arXiv:1810.04805."""

from typing import Any

import torch
from torch import Tensor, nn

from formers.data.batches import Ordered, Packed, mask_tokens
from formers.data.chance import generator
from formers.errors import DataError
from formers.model import Encoder
from formers.spec import Spec
from formers.tasks.chunked_loss import lost
from formers.tasks.fit import require_fit
from formers.tasks.loss import summed_nats
from formers.tasks.prepare import Prepared
from formers.tasks.score import Tally, summed
from formers.train.spec import TrainSpec
from formers.train.task import Batch, Loss, Size, Tick, device_of, untold

# The tokenizer's special ids that masking needs.
SPECIAL = ("end", "pad", "mask")
# The seed of the masks of evaluations, which are the same for every run.
EVALUATION = 1


class Masked:
    """Rows of packed text with 15 % of their tokens chosen: 80 % of these are hidden, 10 % swapped; a `Task`.

    Logits are computed at the chosen tokens only. Differs from the paper: no next-sentence prediction, and rows are
    filled with whole documents end to end (FULL-SENTENCES of RoBERTa, arXiv:1907.11692).
    """

    def __init__(self, prepared: Prepared, spec: TrainSpec) -> None:
        if prepared.tokenizer.mask is None:
            raise DataError(f"the tokenizer has no id that hides a token; prepare the text with special={SPECIAL}")
        require_neighbours(spec)
        self._prepared, self._spec = prepared, spec
        self._windows = Packed(prepared.train, spec.length - 1, spec.batch, spec.seed)

    @property
    def data(self) -> dict[str, str]:
        return self._prepared.fingerprints

    def require(self, spec: Spec) -> None:
        require_fit(spec, Encoder, self._prepared.tokenizer, self._spec.length)

    def batch(self, step: int) -> Batch:
        """inputs, what stands there in truth, and where it is to be told: (B, T) each."""
        return self._hide(self._windows.at(step - 1), self._spec.seed, step)

    def size(self, batch: Batch) -> Size:
        return Size(batch["inputs"].numel(), int(batch["chosen"].sum()))

    def loss(self, model: Any, batch: Batch) -> Loss:
        spec, chosen = self._spec, batch["chosen"]
        chunk, smoothing, truth = spec.loss_chunk, spec.label_smoothing, batch["truth"][chosen]
        return lost(model, truth, batch["inputs"], chunk=chunk, smoothing=smoothing, logits_at=chosen)

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """nats per hidden token, perplexity, accuracy and tokens, with masks that are the same in every evaluation; of a
        model with sparse layers the figures of `UnitCounts`."""
        tokens = self._prepared.held_out.tokens if limit is None else self._prepared.held_out.tokens[:limit]
        windows = Ordered(tokens, self._spec.length - 1, self._spec.batch)
        tally, right, told = Tally(), [], 0
        for number, (rows, real) in enumerate(windows, 1):
            batch = self._hide(rows.masked_fill(~real, self._mask_id), EVALUATION, number)
            told += self.size(batch).targets
            loss, hits = _tested(model, batch, real)
            tally.add(loss)
            right.append(hits)
            tick(number / len(windows))
        if not told:
            raise DataError("the held-out text has no token that can be hidden; hold more text out")
        return tally.score(told) | {"accuracy": summed(right) / told}

    @property
    def _mask_id(self) -> int:
        mask = self._prepared.tokenizer.mask
        if mask is None:
            raise DataError("the tokenizer has no id that hides a token")
        return mask

    def _hide(self, tokens: Tensor, seed: int, step: int) -> Batch:
        tokenizer = self._prepared.tokenizer
        chance = generator(seed, step)
        inputs, chosen = mask_tokens(tokens, self._mask_id, tokenizer.vocab, tokenizer.special_ids, chance)
        return {"inputs": inputs, "truth": tokens, "chosen": chosen}


def _tested(model: Any, batch: Batch, real: Tensor) -> tuple[Loss, Tensor]:
    """The loss, and how many tokens were guessed right."""
    device = device_of(model)
    chosen = batch["chosen"].to(device)
    with torch.no_grad():
        out = model(batch["inputs"].to(device), mask=real.to(device), logits_at=chosen, remember=False)
        truth = batch["truth"].to(device)[chosen]
        loss = Loss(summed_nats(out.logits, truth), out.losses, out.records)
        return loss, (out.logits.argmax(-1) == truth).sum()


def require_neighbours(spec: TrainSpec) -> None:
    """Raises DataError where a hidden token would stand alone in its row."""
    if spec.length < 2:
        raise DataError("rows of one token leave nothing to fill it in from; use length=2 or more")
