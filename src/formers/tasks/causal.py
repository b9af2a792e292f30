"""Causal language modelling: predict every token from those before it."""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from formers.carried import carries
from formers.data.batches import Ordered, OrderedStreams, Packed, Streams
from formers.data.tokenizer import Tokenizer
from formers.data.tokens import TokenFile
from formers.errors import ConfigError
from formers.model import Decoder
from formers.spec import Spec
from formers.tasks.chunked_loss import lost
from formers.tasks.fit import require_fit
from formers.tasks.prepare import Prepared
from formers.tasks.score import Tally, byte_count
from formers.train.spec import TrainSpec
from formers.train.task import Batch, Loss, Size, Tick, device_of, untold


class Causal:
    """Documents packed end to end and cut into windows, each once an epoch; a `Task`.

    A model that carries a state through training learns from `CausalStreams`; `causal_task` takes what fits a model.
    """

    def __init__(self, prepared: Prepared, spec: TrainSpec) -> None:
        self._prepared, self._spec = prepared, spec
        self._windows: Packed | Streams = self._read()

    def _read(self) -> Packed | Streams:
        return Packed(self._prepared.train, self._spec.length, self._spec.batch, self._spec.seed)

    @property
    def data(self) -> dict[str, str]:
        return self._prepared.fingerprints

    def require(self, spec: Spec) -> None:
        require_fit(spec, Decoder, self._prepared.tokenizer, self._spec.length)
        if carries(spec) and isinstance(self._windows, Packed):
            what = (
                "the model carries a state from step to step, and windows in random order do not go on from each other"
            )
            raise ConfigError(f"{what}: train it on CausalStreams")

    def batch(self, step: int) -> Batch:
        """inputs and targets, (B, T) int64 each."""
        window = self._windows.at(step - 1)
        return {"inputs": window[:, :-1].contiguous(), "targets": window[:, 1:].contiguous()}

    def size(self, batch: Batch) -> Size:
        return Size(batch["inputs"].numel(), batch["targets"].numel())

    def loss(self, model: Any, batch: Batch) -> Loss:
        spec = self._spec
        targets, inputs = batch["targets"], batch["inputs"]
        return lost(model, targets, inputs, chunk=spec.loss_chunk, smoothing=spec.label_smoothing)

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """See `evaluate_text`."""
        held_out, spec = self._prepared.held_out, self._spec
        tokenizer, chunk = self._prepared.tokenizer, spec.loss_chunk
        return evaluate_text(model, held_out, tokenizer, spec.length, spec.batch, limit, tick, loss_chunk=chunk)


class CausalStreams(Causal):
    """The same of streams that go on from step to step, for models that carry a state; a `StreamTask`."""

    def _read(self) -> Streams:
        return Streams(self._prepared.train, self._spec.length, self._spec.batch, self._spec.seed)

    def continues(self, step: int) -> bool:
        """False where a pass over the text begins."""
        return cast(Streams, self._windows).continues(step - 1)

    def loss(self, model: Any, batch: Batch, state: Any = None) -> Loss:
        spec, (inputs, targets) = self._spec, (batch["inputs"], batch["targets"])
        named: dict[str, Any] = {"chunk": spec.loss_chunk, "smoothing": spec.label_smoothing}
        return lost(model, targets, inputs, state=state, remember=True, **named)


def causal_task(prepared: Prepared, spec: TrainSpec, model: Spec) -> Causal:
    """Next tokens as a model of that spec learns them: from streams where it carries a state, else from windows."""
    return CausalStreams(prepared, spec) if carries(model) else Causal(prepared, spec)


def evaluate_text(
    model: nn.Module,
    text: TokenFile,
    tokenizer: Tokenizer,
    length: int,
    batch: int,
    limit: int | None = None,
    tick: Tick = untold,
    *,
    loss_chunk: int | None = None,
) -> dict[str, float]:
    """What a causal model needs for a text, each of whose tokens is predicted exactly once.

    The text is cut into windows of `length` tokens, and a token sees those before it in its window only. For a model that
    carries a state through training it is cut into `batch` parts, read `length` tokens at a time, and a token sees what the
    model remembers of its part. The first token of all is predicted from the end id; where there is none, it is charged
    ln(vocabulary). limit: read the first so many tokens only. loss_chunk: as in a `TrainSpec`.

    Gives nats (per token), perplexity, tokens, and bits_per_byte and bytes where the bytes of the text are known: all
    the nats, those of the end ids included, over ln 2 times the bytes of UTF-8; what a model with sparse layers made of its
    units, see `UnitCounts`, and one with spans of these, see `SpanTally`. Raises ConfigError if the model does not fit the
    tokenizer or the length, and DataError if the text is of another tokenizer.
    """
    text.require(tokenizer)
    require_fit(cast(Spec, model.spec), Decoder, tokenizer, length)
    tokens = text.tokens if limit is None else text.tokens[:limit]
    goes_on = carries(cast(Spec, model.spec))
    windows = (OrderedStreams if goes_on else Ordered)(tokens, length, batch, start=tokenizer.end)
    tally, state = Tally(), None
    for number, (rows, real) in enumerate(windows, 1):
        loss = _lost(model, rows, real, loss_chunk, state, goes_on)
        state = loss.state
        tally.add(loss)
        tick(number / len(windows))
    opening = 0.0 if tokenizer.end is not None else math.log(tokenizer.vocab)
    text_bytes = text.text_bytes if len(tokens) == len(text.tokens) else byte_count(tokens, tokenizer)
    return tally.score(len(tokens), text_bytes, opening=opening)


def _lost(model: nn.Module, rows: Tensor, real: Tensor, chunk: int | None, state: Any, goes_on: bool) -> Loss:
    inputs, targets, counted = (tensor.to(device_of(model)) for tensor in (rows[:, :-1], rows[:, 1:], real[:, 1:]))
    named: dict[str, Any] = {"chunk": chunk} | ({"state": state, "remember": True} if goes_on else {})
    with torch.no_grad():
        if real.all():
            return lost(model, targets, inputs, **named)
        return lost(model, targets[counted], inputs, logits_at=counted, **named)
