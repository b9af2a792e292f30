"""Small models with the contract of a decoder and of an encoder-decoder, cheap and exact in float64."""

from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn


class Reply(NamedTuple):
    logits: Tensor | None
    state: tuple[Tensor, ...]


class Writer(nn.Module):
    """Remembers a fading sum of its tokens' vectors; every token since the first matters, and padding does not."""

    def __init__(self, vocab: int, max_length: int | None = None, seed: int = 0) -> None:
        super().__init__()
        self.table = nn.Parameter(
            torch.randn(vocab, vocab, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        )
        self.spec = SimpleNamespace(name="writer", vocab=vocab, max_length=max_length)
        self.rows_read: list[int] = []
        self.eval()

    def step(self, tokens, state, *, mask=None, logits_at=slice(-1, None)) -> Reply:
        if self.training or torch.is_grad_enabled():
            raise AssertionError("a model must decode without dropout and without gradients")
        sums, counts = state or (self.table.new_zeros(len(tokens), self.spec.vocab), tokens.new_zeros(len(tokens)))
        if len(sums) != len(tokens):
            raise AssertionError(f"{len(tokens)} rows of tokens do not fit a state of {len(sums)}")
        self.rows_read.append(len(tokens))
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        hidden = []
        for token, real in zip(tokens.T, mask.T, strict=True):
            sums = torch.where(real[:, None], 0.7 * sums + self.table[token], sums)
            counts = counts + real
            hidden.append(sums)
        limit = self.spec.max_length
        if limit is not None and int(counts.max()) > limit:
            raise AssertionError("read past the limit")
        logits = None if logits_at is None else torch.stack(hidden, 1)[:, logits_at]
        return Reply(logits, (sums, counts))


class Translator(Writer):
    """The same for the target side; its sum begins with that of the source."""

    def __init__(self, vocab: int, max_length: int | None = None, seed: int = 0) -> None:
        super().__init__(vocab, max_length, seed)
        self.spec.source = SimpleNamespace(vocab=vocab, max_length=9)

    def start(self, source, source_mask=None) -> tuple[Tensor, ...]:
        mask = torch.ones_like(source, dtype=torch.bool) if source_mask is None else source_mask
        return (self.table.flip(1)[source] * mask[..., None]).sum(1), torch.zeros(len(source), dtype=torch.int64)


@pytest.fixture
def writer():
    """Makes a decoder."""
    return Writer


@pytest.fixture
def translator():
    """Makes an encoder-decoder."""
    return Translator
