"""What a model costs, part by part: parameters, operations per token, and the bytes that decoding reads and keeps.

Operations are those of matrix products, a multiplication and an addition counting as two; norms, activations and
softmaxes are a few per cent beside them. Attention counts the pairs that its pattern shows.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from formers.block import Block
from formers.errors import FormersError
from formers.model import EncoderDecoder
from formers.report.price import Price, price_of
from formers.spec.core import Site, Spec


class Part(NamedTuple):
    """Equal parts of a model, how many there are, and the price of all of them together."""

    name: str
    number: int
    price: Price


class Cost(NamedTuple):
    """The parts of a model in the order in which they run, at a length. decodes: whether it writes token by token."""

    parts: tuple[Part, ...]
    length: int
    decodes: bool

    @property
    def total(self) -> Price:
        """An encoder-decoder's is for a token of the source and one of the target."""
        return sum((part.price for part in self.parts), Price())


def cost(spec: Any, length: int) -> Cost:
    """What a model of this spec costs at a length in tokens; a source is taken to be as long as its target.

    It is built on the meta device, so that a model of any size costs no memory. Raises ConfigError if it cannot be
    built, and FormersError for a length that it has no positions for.
    """
    if length < 1:
        raise FormersError(f"{length} tokens cost nothing; give a length of at least 1")
    if spec.max_length is not None and length > spec.max_length:
        raise FormersError(f"{spec.name} has {spec.max_length} positions, too few for a length of {length}; give less")
    with torch.device("meta"):
        model: Any = spec.build()
    if not isinstance(spec, EncoderDecoder):
        site = spec.inside(spec.site)
        pieces = [piece._replace(decodes=site.causal) for piece in _pieces(spec, model, site)]
        return Cost(tuple(_together(pieces, length)), length, site.causal)
    reads = spec.source.inside(spec.source.site)
    writes = spec.target.inside(spec.inside(spec.target.site))
    pieces = [
        *(piece.of("source", decodes=False) for piece in _pieces(spec.source, model.source, reads)),
        *(piece.of("target", decodes=True) for piece in _pieces(spec.target, model.target, writes)),
    ]
    return Cost(tuple(_together(pieces, length)), length, decodes=True)


class _Piece(NamedTuple):
    """One part of a model, built, and whether it runs in a decode step."""

    side: str
    path: str
    spec: Spec
    module: nn.Module
    site: Site
    decodes: bool = True

    def of(self, side: str, *, decodes: bool) -> "_Piece":
        """The same piece of one side of an encoder-decoder."""
        return self._replace(side=side, path=f"{side}.{self.path}", decodes=decodes)

    @property
    def kind(self) -> str:
        return f"{self.side} {type(self.spec).__name__}".strip()

    def price(self, length: int) -> Price:
        price = price_of(self.spec, self.module, self.site, length)
        return price if self.decodes else Price(price.parameters, price.operations)


def _pieces(spec: Any, model: Any, site: Site) -> Iterator[_Piece]:
    """The parts of a decoder or an encoder, as deep as they have a price of their own."""
    yield _Piece("", "embedding", spec.embedding, model.embedding, site)
    for i, (part, module) in enumerate(zip(spec.blocks, model.stack.blocks, strict=True)):
        if not isinstance(part, Block):
            yield _Piece("", f"blocks[{i}]", part, module, site)
            continue
        for j, (sublayer, layer) in enumerate(zip(part.sublayers, module.sublayers, strict=True)):
            yield _Piece("", f"blocks[{i}].sublayers[{j}]", sublayer, layer, site)
        yield _Piece("", f"blocks[{i}].residual", part.residual, module.residual, site)
    for name in ("norm", "head", "pooler"):
        if getattr(spec, name, None) is not None:
            yield _Piece("", name, getattr(spec, name), getattr(model, name), site)


def _together(pieces: list[_Piece], length: int) -> Iterator[Part]:
    """Equal pieces as one part; parameters that pieces share are counted where they first occur."""
    groups: dict[tuple[str, Spec], list[_Piece]] = {}
    for piece in pieces:
        groups.setdefault((piece.kind, piece.spec), []).append(piece)
    kinds = [kind for kind, _ in groups]
    seen: set[int] = set()
    for (kind, _), alike in groups.items():
        first = alike[0]
        parameters = sum(_fresh(piece.module, seen) for piece in alike)
        name = kind if kinds.count(kind) == 1 else f"{kind} at {first.path}"
        yield Part(name, len(alike), replace(first.price(length).times(len(alike)), parameters=parameters))


def _fresh(module: nn.Module, seen: set[int]) -> int:
    """How many parameters of a module have not been seen before."""
    new = [parameter for parameter in module.parameters() if id(parameter) not in seen]
    seen.update(map(id, new))
    return sum(parameter.numel() for parameter in new)
