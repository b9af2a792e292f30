"""Embeddings: tokens, and what is added to them, as vectors."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from formers.call import Call
from formers.norm import Norm
from formers.position.absolute import AbsolutePosition
from formers.residual import dropout_problems
from formers.sides import SEGMENT
from formers.spec.core import Site, Spec


class Embedding(Spec):
    """A learned vector for each token, plus its position's and its segment's, then norm and dropout.

    position: absolute positions, if any. segments: how many kinds of segment there are (the mark "segment", 0 where
    it is not given); 0: none, BERT has 2. scaled: token vectors are multiplied by sqrt(dim), as in the 2017 model.
    """

    position: AbsolutePosition | None = None
    segments: int = 0
    scaled: bool = False
    norm: Norm | None = None
    dropout: float = 0.0

    @property
    def marks(self) -> tuple[str, ...]:
        return (SEGMENT,) if self.segments else ()

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from dropout_problems(self.dropout)
        if self.segments < 0:
            yield f"there cannot be {self.segments} kinds of segment", "segments=2"

    @property
    def tables(self) -> int:
        """How many tables of token vectors there are; a head that is tied can read one."""
        return 1

    def build(self, site: Site) -> "EmbeddingLayer":
        return EmbeddingLayer(self, site)


class EmbeddingLayer(nn.Module):
    def __init__(self, spec: Embedding, site: Site) -> None:
        super().__init__()
        self.tokens = nn.Embedding(site.vocab, site.dim)
        self.position = spec.position.build(site) if spec.position else None
        self.segments = nn.Embedding(spec.segments, site.dim) if spec.segments else None
        self.scale = math.sqrt(site.dim) if spec.scaled else 1.0
        self.norm = spec.norm.build(site) if spec.norm else None
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, tokens: Tensor, call: Call) -> Tensor:
        """tokens (B, T) int64 -> (B, T, M)."""
        y: Tensor = self.dropout(self.vectors(tokens, call))
        return y

    def vectors(self, tokens: Tensor, call: Call) -> Tensor:
        """What is dropped out of, (B, T, M)."""
        x: Tensor = self.tokens(tokens)
        x = x * self.scale if self.scale != 1.0 else x
        if self.segments is not None:
            segment = call.at.marks.get(SEGMENT)
            x = x + self.segments(torch.zeros_like(tokens) if segment is None else segment)
        if self.position is not None:
            x = self.position(x, call)
        return x if self.norm is None else self.norm(x)
