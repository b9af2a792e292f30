"""What a model costs, part by part: parameters, operations per token, and the bytes that decoding reads and keeps.

Operations are those of matrix products, a multiplication and an addition counting as two; norms, activations and
softmaxes are a few per cent beside them. Attention counts the pairs that its pattern shows; where pairs are chosen by
content, those of the chunks or blocks that are chosen, and the choice itself.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from torch import nn

import formers.report.decision_price
import formers.report.depth_price
import formers.report.expert_price
import formers.report.feedback_price
import formers.report.global_price
import formers.report.kernel_price
import formers.report.low_rank_price
import formers.report.memorizing_price
import formers.report.retrieval_price
import formers.report.span_price
import formers.report.sparse_price  # noqa: F401 - they register prices
from formers.attention import Attention, Layerwise
from formers.block import Block
from formers.depth import Universal
from formers.encoder_decoder import EncoderDecoder
from formers.encoder_decoder.after_encoder import AfterEncoder
from formers.errors import FormersError
from formers.exits import Exits
from formers.feedforward import FeedForward
from formers.model import on_meta
from formers.parallel import Parallel
from formers.recomputed import Recomputed
from formers.report.price import Price, price_of
from formers.reversible import Reversible
from formers.sparse import BlockFF, SparseFF, SwitchFF
from formers.spec.core import Site, Spec

HELD: dict[type[Spec], str] = {  # parts that hold others
    Block: "sublayers",
    Reversible: "blocks",
    Recomputed: "blocks",
    Layerwise: "blocks",
    Parallel: "layers",
    AfterEncoder: "blocks",
    Exits: "blocks",
}


class Part(NamedTuple):
    """Equal parts of a model, how many there are, and the price of all of them together."""

    name: str
    number: int
    price: Price


class Cost(NamedTuple):
    """The parts of a model in the order in which they run, at a length. decodes: whether it writes token by token.

    recomputed: operations a token, of those of a pass, that training runs once more instead of keeping what they gave.
    """

    parts: tuple[Part, ...]
    length: int
    decodes: bool
    recomputed: float

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
    model = on_meta(spec)
    if not isinstance(spec, EncoderDecoder):
        site = spec.inside(spec.site)
        pieces = [piece._replace(decodes=site.causal) for piece in _pieces(spec, model, site)]
        return _cost(pieces, length, decodes=site.causal)
    reads = spec.source.inside(spec.source.site)
    writes = spec.target.inside(spec.inside(spec.target.site))
    pieces = [
        *(piece.of("source", decodes=False) for piece in _pieces(spec.source, model.source, reads)),
        *(piece.of("target", decodes=True) for piece in _pieces(spec.target, model.target, writes)),
    ]
    return _cost(pieces, length, decodes=True)


class _Piece(NamedTuple):
    """One part of a model, built, and whether it runs in a decode step."""

    side: str
    path: str
    spec: Any
    module: Any
    site: Site
    rebuilt: bool = False  # it stands in a Reversible or in a Recomputed
    behind: bool = False  # it runs over the source, and then over the target
    decodes: bool = True
    times: int = 1  # how often a token goes through it, with the same parameters

    def of(self, side: str, *, decodes: bool) -> "_Piece":
        """The same piece of one side of an encoder-decoder."""
        return self._replace(side=side, path=f"{side}.{self.path}", decodes=decodes)

    @property
    def kind(self) -> str:
        return f"{self.side} {type(self.spec).__name__}".strip()

    def price(self, length: int) -> Price:
        price = price_of(self.spec, self.module, self.site, 2 * length if self.behind else length)
        if self.behind:
            price = replace(
                price, operations=2 * price.operations
            )  # of a target token, and the source token it comes with
        if self.times > 1:
            again = price.times(self.times)
            price = replace(again, parameters=price.parameters, weights=price.weights)
        return price if self.decodes else Price(price.parameters, price.operations)

    def again(self, length: int) -> bool:
        """Whether training runs it once more, as a whole or piece by piece."""
        if isinstance(self.spec, (FeedForward, SparseFF, BlockFF, SwitchFF)) and self.spec.chunk is not None:
            return self.rebuilt or self.spec.chunk < (2 * length if self.behind else length)
        return self.rebuilt or (isinstance(self.spec, Attention) and self.spec.heads_at_once is not None)


def _cost(pieces: list[_Piece], length: int, *, decodes: bool) -> Cost:
    recomputed = sum(piece.price(length).operations for piece in pieces if piece.again(length))
    return Cost(tuple(_together(pieces, length)), length, decodes, recomputed)


def _pieces(spec: Any, model: Any, site: Site) -> Iterator[_Piece]:
    """The parts of a decoder or an encoder, as deep as they have a price of their own."""
    yield _Piece("", "embedding", spec.embedding, model.embedding, site)
    for i, (part, module) in enumerate(zip(spec.blocks, model.stack.blocks, strict=True)):
        yield from _within(_Piece("", f"blocks[{i}]", part, module, site))
    last, times = spec.blocks[-1], 1
    if isinstance(last, Exits) and last.heads is None and last.rule.reads:
        times = len(last.blocks)  # at the end, and at each exit before it
    for name in ("norm", "head", "pooler"):
        if getattr(spec, name, None) is not None:
            piece = _Piece("", name, getattr(spec, name), getattr(model, name), site.replace(dim=spec.out_dim))
            yield piece if name == "pooler" else piece._replace(times=times)


def _within(whole: _Piece) -> Iterator[_Piece]:
    """A part of the depth, or all that it holds."""
    if isinstance(whole.spec, Universal):
        inner = whole._replace(times=whole.times * whole.spec.steps, path=f"{whole.path}.block")
        yield from _within(inner._replace(spec=whole.spec.block, module=whole.module.block))
        yield whole
        return
    name = HELD.get(type(whole.spec))
    if name is None:
        yield whole
        return
    inner = whole._replace(
        site=whole.spec.inside(whole.site),
        rebuilt=whole.rebuilt or isinstance(whole.spec, (Reversible, Recomputed)),
        behind=whole.behind or isinstance(whole.spec, AfterEncoder),
    )
    held = zip(getattr(whole.spec, name), getattr(whole.module, name), strict=True)
    for i, (part, module) in enumerate(held):
        yield from _within(inner._replace(path=f"{whole.path}.{name}[{i}]", spec=part, module=module))
    if isinstance(whole.spec, Exits):
        yield whole
    if isinstance(whole.spec, Block):
        path, rule = f"{whole.path}.residual", whole.spec.residual
        yield inner._replace(path=path, spec=rule, module=whole.module.residual)
    if isinstance(whole.spec, Parallel) and whole.spec.norm is not None:
        yield inner._replace(path=f"{whole.path}.norm", spec=whole.spec.norm, module=whole.module.norms)


def _together(pieces: list[_Piece], length: int) -> Iterator[Part]:
    """Equal pieces as one part; parameters that pieces share are counted where they first occur."""
    groups: dict[tuple[str, Spec, int], list[_Piece]] = {}
    for piece in pieces:
        groups.setdefault((piece.kind, piece.spec, piece.times), []).append(piece)
    kinds = [kind for kind, _, _ in groups]
    seen: set[int] = set()
    for (kind, _, _), alike in groups.items():
        first = alike[0]
        parameters = sum(_fresh(piece.module, seen) for piece in alike)
        name = kind if kinds.count(kind) == 1 else f"{kind} at {first.path}"
        yield Part(name, len(alike), replace(first.price(length).times(len(alike)), parameters=parameters))


def _fresh(module: nn.Module, seen: set[int]) -> int:
    """How many parameters of a module have not been seen before."""
    new = [parameter for parameter in module.parameters() if id(parameter) not in seen]
    seen.update(map(id, new))
    return sum(parameter.numel() for parameter in new)
