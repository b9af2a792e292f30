"""What every exit says of tokens that nobody trained on, and thresholds that are found by it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from formers.encoder_decoder import EncoderDecoder
from formers.errors import ConfigError, DataError
from formers.exits.halting.rules import GeometricHaltingLayer
from formers.exits.halting.search import Found, search
from formers.exits.layer import ExitsLayer
from formers.model import EVERY
from formers.tasks.chunked_loss import ChunkedNats

CHUNK = 1024  # tokens whose logits exist at a time


class Question(NamedTuple):
    """What a model is given, tensors (B, ...), and what it is to say, (B, T'), at some places of the last of them."""

    inputs: tuple[Tensor, ...]
    targets: Tensor
    at: slice = EVERY


class Scores(NamedTuple):
    """How well a model does on held-out tokens: the share that is right, and the mean exit, from 1 to N."""

    accuracy: float
    exit: float


def searched(model: Any, questions: Iterable[Question], price: float) -> Found:
    """The thresholds of the highest accuracy - price * mean exit, by what each exit says of these tokens; see `search`.

    Raises ConfigError unless the model leaves by `GeometricHalting`, and DataError where there are no tokens.
    """
    if price < 0:
        raise ConfigError(f"a block that costs {price:g} would be taken for its own sake: give 0 or more")
    told = [at_every_exit(model, question) for question in questions]
    if not told:
        raise DataError("there are no held-out tokens to search thresholds by: give more text")
    confidence, right = (torch.cat(parts) for parts in zip(*told, strict=True))
    return search(confidence, right, price)


@torch.no_grad()
def at_every_exit(model: Any, question: Question) -> tuple[Tensor, Tensor]:
    """chi (tokens, N - 1) of all exits but the last, and whether each exit is right, (tokens, N) bool."""
    with _past_all_exits(model) as layer:
        loss = ChunkedNats(question.targets, CHUNK)
        out = model(*question.inputs, logits_at=question.at, remember=False, loss=loss)
    side = "target." if isinstance(model.spec, EncoderDecoder) else ""
    depth, rule = len(layer.blocks), layer.rule
    hidden = out.records[f"{side}exits"][-depth:-1]
    chi = torch.stack([rule.chi(number, x[:, question.at]) for number, x in enumerate(hidden)], -1)
    right = torch.stack([hit for _, hit in out.exits.judged], -1)
    return chi.flatten(0, 1).cpu(), right.flatten(0, 1).cpu()


@torch.no_grad()
def scores(model: Any, questions: Iterable[Question]) -> Scores:
    """How the model does as it is, tokens leaving where they do."""
    right, exits = [], []
    for question in questions:
        out = model(*question.inputs, logits_at=question.at, remember=False)
        right.append((out.logits.argmax(-1) == question.targets).flatten())
        side = "target." if isinstance(model.spec, EncoderDecoder) else ""
        exits.append(out.records[f"{side}leaves"][-1][:, question.at].flatten())
    return Scores(torch.cat(right).double().mean().item(), torch.cat(exits).double().mean().item())


@contextmanager
def _past_all_exits(model: Any) -> Iterator[Any]:
    """Within, all tokens run past all exits, as in training; dropout and all else are as they were."""
    layers = [layer for layer in model.modules() if isinstance(layer, ExitsLayer)]
    layer = next((layer for layer in layers if isinstance(layer.rule, GeometricHaltingLayer)), None)
    if layer is None:
        raise ConfigError(
            f"{model.spec.name} has no exits with thresholds of their own; train a `depth_adaptive` with halting=geometric"
        )
    before = layer.training, layer.rule.training
    layer.training = layer.rule.training = True
    try:
        yield layer
    finally:
        layer.training, layer.rule.training = before
