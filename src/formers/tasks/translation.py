"""Translation: write the target sentence, given the source. Vaswani et al. 2017, arXiv:1706.03762."""

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from formers.data.batches import PairBatch, PairBatches
from formers.data.tokenizer import Tokenizer
from formers.decode import beam_search
from formers.encoder_decoder import EncoderDecoder
from formers.errors import DataError
from formers.spec import Spec
from formers.tasks.chunked_loss import lost
from formers.tasks.fit import require_fit
from formers.tasks.pairs import IdPairs, PreparedPairs
from formers.tasks.score import Tally
from formers.train.spec import TrainSpec
from formers.train.task import Batch, Loss, Size, Tick, device_of, to_device, untold

# Of the beam search, as in the paper, section 6.1.
WIDTH, ALPHA, MORE = 4, 0.6, 50
# Sentences that are translated at a time.
TOGETHER = 64


class Translation:
    """Sentence pairs of like length, some batch x length tokens in a batch, padding neither seen nor learned; a `Task`.

    The decoder reads the start id and the target, and learns the target and the end id, with label smoothing.
    """

    def __init__(self, prepared: PreparedPairs, spec: TrainSpec) -> None:
        self._prepared, self._spec = prepared, spec
        self._batches = self._batched(prepared.train, spec.seed)
        self._held_out = self._batched(prepared.held_out, 0)

    @property
    def data(self) -> dict[str, str]:
        return self._prepared.fingerprints

    def require(self, spec: Spec) -> None:
        require_fit(spec, EncoderDecoder, self._prepared.tokenizer)

    def batch(self, step: int) -> Batch:
        """The tensors of a `PairBatch`, by name."""
        return self._batches.at(step - 1)._asdict()

    def size(self, batch: Batch) -> Size:
        targets = int(batch["mask"].sum())
        return Size(int(batch["source_mask"].sum()) + targets, targets)

    def loss(self, model: Any, batch: Batch) -> Loss:
        return _loss(model, batch, self._spec)

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """nats per target token, perplexity and tokens, without smoothing; on all held-out pairs, BLEU too; of a model with
        sparse layers the figures of `UnitCounts`.

        BLEU is sacrebleu's, of what a beam of 4 writes; it is left out where sacrebleu is not installed.
        """
        tally, tokens, plain = Tally(), 0, self._spec.replace(label_smoothing=0.0)
        for number in range(len(self._held_out)):
            batch = self._held_out.at(number)._asdict()
            with torch.no_grad():
                tally.add(_loss(model, to_device(batch, device_of(model)), plain))
            tokens += self.size(batch).targets
            tick((number + 1) / len(self._held_out))
            if limit is not None and tokens >= limit:
                break
        return tally.score(tokens) | (self._bleu(model, tick) if limit is None else {})

    def _bleu(self, model: nn.Module, tick: Tick) -> dict[str, float]:
        if importlib.util.find_spec("sacrebleu") is None:
            return {}
        import sacrebleu

        sources = [source for source, _ in self._prepared.held_out]
        written = translate(model, sources, self._prepared.tokenizer, tick)
        truth = [target for _, target in self._prepared.held_out_text]
        return {"bleu": sacrebleu.corpus_bleu(written, [truth]).score}

    def _batched(self, pairs: IdPairs, seed: int) -> PairBatches:
        tokenizer = self._prepared.tokenizer
        end, pad = _end_of(tokenizer), tokenizer.pad
        return PairBatches(
            pairs,
            self._spec.batch * self._spec.length,
            start=end if tokenizer.start is None else tokenizer.start,
            end=end,
            pad=end if pad is None else pad,
            seed=seed,
        )


def translate(
    model: nn.Module, sources: Sequence[Sequence[int]], tokenizer: Tokenizer, tick: Tick = untold
) -> list[str]:
    """The likeliest translation of each source by the paper's beam search, in the order of the sources.

    Like lengths are translated together, and each may be 50 tokens longer than the longest source beside it.
    """
    order = sorted(range(len(sources)), key=lambda number: len(sources[number]), reverse=True)
    written = [""] * len(sources)
    for start in range(0, len(order), TOGETHER):
        numbers = order[start : start + TOGETHER]
        prompts = [sources[number] for number in numbers]
        longest = len(prompts[0]) + MORE
        found = beam_search(
            model, prompts, width=WIDTH, alpha=ALPHA, max_new=longest, stop=_end_of(tokenizer), tokenizer=tokenizer
        )
        for number, hypotheses in zip(numbers, found, strict=True):
            written[number] = hypotheses[0].text or ""
        tick(min(1.0, (start + TOGETHER) / len(order)))
    return written


def _loss(model: Any, batch: Batch, spec: TrainSpec) -> Loss:
    pairs = PairBatch(**batch)
    return lost(
        model,
        pairs.targets[pairs.mask],
        pairs.source,
        pairs.inputs,
        chunk=spec.loss_chunk,
        smoothing=spec.label_smoothing,
        source_mask=pairs.source_mask,
        mask=pairs.mask,
        logits_at=pairs.mask,
    )


def _end_of(tokenizer: Tokenizer) -> int:
    if tokenizer.end is None:
        raise DataError("a translation ends with the end id, and the tokenizer has none; use another one")
    return tokenizer.end
