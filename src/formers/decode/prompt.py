"""Prompts: checked, brought into one batch, and read by the model, up to the logits of the first new token."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn

from formers.data.tokenizer.protocol import Tokenizer
from formers.errors import FormersError
from formers.model import Encoder

Finish = Literal["stop", "length", "limit"]

# Columns of a long prompt that the model reads at a time: memory stays bounded however long the prompt is.
CHUNK = 1024


class Reply(Protocol):
    """What a model answers with: logits (B, 1, V) of the last token, and the state to continue from."""

    logits: Tensor | None
    state: Any


@dataclass(frozen=True)
class Prompts:
    """A checked batch of prompts.

    tokens: (B, T) int64, padded on the left. A row is padded with its own first token, so that the set of tokens in
        a row stays the true one.
    mask: (B, T) bool, True at real tokens, or None where all rows are of one length.
    budgets: how many tokens each row may get, and with what reason it ends when it has them.
    reads_source: whether the rows are the source of an encoder-decoder, which then writes from `start`.
    vocab: how many ids there are to write with.
    """

    tokens: Tensor
    mask: Tensor | None
    budgets: list[tuple[int, Finish]]
    reads_source: bool
    start: int | None
    vocab: int

    @property
    def written(self) -> Tensor:
        """(B, T), what stands before the first new token on the side that the model writes."""
        return self.tokens.new_full((len(self.tokens), 1), cast(int, self.start)) if self.reads_source else self.tokens


def prepare(
    model: nn.Module, prompts: Sequence[Sequence[int]], max_new: int, start: int | None, tokenizer: Tokenizer | None
) -> Prompts:
    """Check the prompts against the model. Raises FormersError where one cannot be read or continued."""
    spec: Any = model.spec
    if isinstance(spec, Encoder) or not hasattr(model, "step"):
        raise FormersError(f"{spec.name} cannot write on from a prompt; use a decoder or an encoder-decoder")
    if max_new < 1:
        raise FormersError(f"max_new={max_new} leaves nothing to write; give at least 1")
    if not len(prompts):
        raise FormersError("there are no prompts; give at least one list of token ids")
    start = _start_id(start, tokenizer, spec.vocab)
    reads_source = hasattr(model, "start")
    if reads_source and start is None:
        raise FormersError(
            "an encoder-decoder needs an id to start from; give start=ID, or a tokenizer that has a start or end id"
        )
    reader = spec.source if reads_source else spec
    rows = [_row(place, prompt, start, reader.vocab, reader.max_length) for place, prompt in enumerate(prompts)]
    budgets = [_budget(max_new, 1 if reads_source else len(row), spec.max_length) for row in rows]
    tokens, mask = _pad_left(rows)
    device = next(model.parameters()).device
    mask = None if mask is None else mask.to(device)
    return Prompts(tokens.to(device), mask, budgets, reads_source, start, spec.vocab)


def read(model: nn.Module, prompts: Prompts) -> tuple[Tensor, Any]:
    """Run the model over the prompts: the logits (B, V) of each row's first new token, and the state to go on from."""
    writer: Any = model
    if prompts.reads_source:
        state = writer.start(prompts.tokens, source_mask=prompts.mask)
        reply = writer.step(prompts.written, state, logits_at=slice(-1, None))
    else:
        reply = _read_in_chunks(writer, prompts.tokens, prompts.mask)
    logits = last_logits(reply)
    refuse_not_finite(logits)
    return logits, reply.state


def refuse_not_finite(logits: Tensor) -> None:
    """Raise FormersError where some row of logits (B, V) has no largest number."""
    if not torch.isfinite(logits.amax(-1)).all():
        raise FormersError(
            "the model's logits are not finite, so no token can be chosen: it diverged in training, or its weights are "
            "damaged; go back to an earlier checkpoint"
        )


def last_logits(reply: Reply) -> Tensor:
    """(B, V), the logits of the last token that a model was given."""
    return cast(Tensor, reply.logits)[:, -1]


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """No gradients and no dropout inside; afterwards every module is in the mode that it was in."""
    with torch.inference_mode():
        if not model.training:
            yield
            return
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


def _read_in_chunks(model: Any, tokens: Tensor, mask: Tensor | None) -> Reply:
    length, state = tokens.shape[1], None
    for begin in range(0, length, CHUNK):
        cut = slice(begin, begin + CHUNK)
        logits_at = slice(-1, None) if begin + CHUNK >= length else None
        reply = model.step(tokens[:, cut], state, mask=None if mask is None else mask[:, cut], logits_at=logits_at)
        state = reply.state
    return cast(Reply, reply)


def _start_id(start: int | None, tokenizer: Tokenizer | None, vocab: int) -> int | None:
    if start is not None and not 0 <= start < vocab:
        raise FormersError(f"the start id {start} is outside the vocabulary; give one from 0 to {vocab - 1}")
    if start is not None or tokenizer is None:
        return start
    # A tokenizer may have special ids that the model was built without.
    return next((token for token in (tokenizer.start, tokenizer.end) if token is not None and token < vocab), None)


def _row(place: int, prompt: Sequence[int], start: int | None, vocab: int, max_length: int | None) -> Tensor:
    try:
        row = torch.as_tensor(prompt)
    except (TypeError, ValueError, RuntimeError) as error:
        raise FormersError(f"prompt {place} is not a list of token ids; encode text with a tokenizer first") from error
    if row.dim() != 1:
        raise FormersError(
            f"prompt {place} is not a flat list of token ids; give a list of such lists, one for each row"
        )
    if not len(row):
        if start is None:
            raise FormersError(
                f"prompt {place} is empty, and there is no start or end id to begin with; give start=ID, or some text"
            )
        return torch.tensor([start])
    if row.is_floating_point() or row.is_complex() or row.dtype == torch.bool:
        raise FormersError(f"prompt {place} holds {row.dtype} values; token ids are whole numbers")
    low, high = int(row.min()), int(row.max())
    if low < 0 or high >= vocab:
        odd = low if low < 0 else high
        raise FormersError(
            f"prompt {place} holds the id {odd}, and the model's ids run from 0 to {vocab - 1}; "
            "encode it with the tokenizer that the model was trained with"
        )
    if max_length is not None and len(row) > max_length:
        raise FormersError(
            f"prompt {place} has {len(row)} tokens and the model reads at most {max_length}; keep its last {max_length}"
        )
    return row.to(torch.int64).cpu()


def _budget(max_new: int, used: int, max_length: int | None) -> tuple[int, Finish]:
    """A token can follow the last one that the model can read, so there is room for one more than it reads."""
    if max_length is None or max_new <= max_length - used + 1:
        return max_new, "limit"
    return max_length - used + 1, "length"


def _pad_left(rows: list[Tensor]) -> tuple[Tensor, Tensor | None]:
    longest = max(map(len, rows))
    tokens = torch.stack([torch.cat([row[:1].expand(longest - len(row)), row]) for row in rows])
    if all(len(row) == longest for row in rows):
        return tokens, None
    lengths = torch.tensor([len(row) for row in rows])
    return tokens, torch.arange(longest) >= longest - lengths[:, None]
