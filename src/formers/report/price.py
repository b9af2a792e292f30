"""The price of one part. A kind of part that costs more than its matrices registers its own `price_of`."""

from dataclasses import dataclass, fields
from functools import cache, singledispatch
from typing import Any

import torch
from torch import nn

from formers.attention import Attention, CrossAttention, SinkhornAttention
from formers.attention.pattern import Pattern
from formers.embedding import Embedding
from formers.head import MaskedLM, Pooler, Tied
from formers.model import parameter_count
from formers.position import Position, Shaw, TransformerXL
from formers.position.transformer_xl import folding_pays
from formers.report.beside import beside
from formers.report.choosing import Asked, Choosing, choosing_of
from formers.report.products import by_matrices
from formers.report.quantity import NUMBER
from formers.report.square import keys_seen
from formers.report.tail import tail
from formers.spec.core import Site, Spec


@dataclass(frozen=True)
class Price:
    """What a part costs at a length of N tokens.

    operations: per token, the mean over one pass of N tokens; last: of the Nth token alone, in a decode step.
    weights: bytes of the parameters that a decode step reads, and of centroids. token: bytes that a token adds to the
    state, those of a block shared out among its tokens; state: bytes of the state after N tokens, where old ones may
    have been forgotten.
    """

    parameters: int = 0
    operations: float = 0
    last: float = 0
    weights: float = 0
    token: float = 0
    state: float = 0

    def __add__(self, other: "Price") -> "Price":
        return Price(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Price)))

    def times(self, count: int) -> "Price":
        """The price of that many equal parts."""
        return Price(*(getattr(self, field.name) * count for field in fields(Price)))


@singledispatch
def price_of(part: Spec, module: Any, site: Site, length: int) -> Price:
    """The price of a part, given the module built of it at a site (on the meta device, which costs nothing).

    Where nothing else is registered: every matrix meets every token, every parameter is read, nothing is kept.
    """
    parameters, products = parameter_count(module), by_matrices(module)
    return Price(parameters, products, products, NUMBER * parameters)


@price_of.register
def _attention(part: Attention, module: Any, site: Site, length: int) -> Price:
    inner = part.inside(site)
    choice = _choice(part, module, site, length)
    pair = 4 * inner.heads * inner.head_dim  # its score, and its share of the output
    products = by_matrices(module.projection)
    pattern = part.pattern_at(site)
    memory = beside(part.memory, inner, length)
    slots, last_slots = memory.slots
    held = _kept(pattern, length - 1) + 1 + last_slots
    by_place, by_last_place = place_operations(part.position, inner, length, held)
    token = NUMBER * (2 * (part.kv_heads or part.heads) * inner.head_dim + memory.numbers)
    parameters = parameter_count(module)
    return Price(
        parameters,
        products + pair * (choice.pairs + slots) + choice.operations + by_place + memory.operations,
        products + pair * (choice.last_pairs + last_slots) + choice.last + by_last_place + memory.last,
        NUMBER * parameters + choice.weights,
        token + choice.token,
        token * _kept(pattern, length) + choice.state + NUMBER * (tail(part.projection, inner) + memory.state),
    )


def _choice(part: Attention, module: Any, site: Site, length: int) -> Choosing:
    """Which pairs are worked on, and what it costs to choose them."""
    inner, pattern = part.inside(site), part.pattern_at(site)
    shown = _keys_seen(pattern, inner.heads, length)
    if part.select is None:
        return Choosing(*shown)
    asked = Asked(inner, length, shown, _kept(pattern, length - 1) + 1, _kept(pattern, length))
    return choosing_of(part.select, module.select, asked)


@price_of.register
def _sinkhorn(part: SinkhornAttention, module: Any, site: Site, length: int) -> Price:
    """Blocks are scored against each other, mixed, and met. A decoder sorts to a block when that begins."""
    inner, block = part.inside(site), part.block
    width, blocks = inner.heads * inner.head_dim, -(-length // block)
    met = 2 if part.cut is None else min(part.cut, blocks)  # blocks that a query meets
    mixed = blocks if part.cut is None else met
    score = 2 * width * (inner.dim + inner.head_dim)  # what one block seeks, or offers
    mix = 2 * width * (1 + 2 * block)  # a pair of blocks: their score, and one's share in the other's keys and values
    sorting = 2 * blocks * score + 2 * width * blocks**2 + 4 * width * block * mixed * blocks
    met_of_all = met * block * (blocks * block if part.cut is None else length)
    last_sorting = (1 + blocks) * score + mix * blocks if (length - 1) % block == 0 else 0
    products, parameters = by_matrices(module.projection), parameter_count(module)
    token, of_block = NUMBER * 2 * width, NUMBER * (inner.dim + inner.heads * part.iterations)
    return Price(
        parameters,
        products + (sorting + 4 * width * met_of_all) / length,
        products + last_sorting + 4 * width * met * block,
        NUMBER * parameters,
        token + of_block / block,
        token * (length + block) + of_block * blocks,
    )


@price_of.register
def _cross_attention(part: CrossAttention, module: Any, site: Site, length: int) -> Price:
    """The source is taken to be as long as the target; its keys and values are made once, and kept."""
    inner = part.inside(site)
    pairs = 4 * inner.heads * inner.head_dim * length
    made_once = nn.ModuleList([module.projection.k_proj, module.projection.v_proj])
    products, parameters = by_matrices(module), parameter_count(module)
    return Price(
        parameters,
        products + pairs,
        products - by_matrices(made_once) + pairs,
        NUMBER * (parameters - parameter_count(made_once)),
        0,
        NUMBER * (2 * (part.kv_heads or part.heads) * inner.head_dim * length + tail(part.projection, inner)),
    )


@price_of.register
def _embedding(part: Embedding, module: Any, site: Site, length: int) -> Price:
    """A token reads one row of each table; a position may have a matrix behind its own."""
    tables = [inner.weight for inner in (module.tokens, module.segments) if inner is not None]
    tables += module.position.read_by_row() if module.position is not None else []
    parameters = parameter_count(module)
    read = parameters - sum(table.numel() for table in tables) + sum(table.shape[1] for table in tables)
    products = by_matrices(module)
    return Price(parameters, products, products, NUMBER * read)


@price_of.register(Tied)
@price_of.register(MaskedLM)
def _tied(part: Spec, module: nn.Module, site: Site, length: int) -> Price:
    """The embedding's table is a matrix here."""
    parameters, table = parameter_count(module), site.vocab * site.dim
    products = by_matrices(module) + 2 * table
    return Price(parameters, products, products, NUMBER * (parameters + table))


@price_of.register
def _pooler(part: Pooler, module: nn.Module, site: Site, length: int) -> Price:
    """It looks at the first token only."""
    return Price(parameter_count(module), by_matrices(module) / length)


@singledispatch
def place_operations(position: Position, inner: Site, length: int, held: int) -> tuple[float, float]:
    """Operations that a position adds to attention: per token of a pass, and of the last token in a decode step, when the
    keys of `held` tokens are at hand."""
    return 0.0, 0.0


@place_operations.register
def _shaw(position: Shaw, inner: Site, length: int, held: int) -> tuple[float, float]:
    each = 4 * inner.heads * inner.head_dim * (2 * position.reach + 1)
    return each, each


@place_operations.register
def _transformer_xl(position: TransformerXL, inner: Site, length: int, held: int) -> tuple[float, float]:
    """The sinusoids of all distances are projected once a call, and every query meets all of them, and one more to shift
    by. A single query is brought to the sinusoids where that takes less."""
    width = inner.heads * inner.head_dim
    columns = (length if inner.causal else 2 * length - 1) + (length > 1)
    last = 2 * width * (inner.dim + 1) * held
    if folding_pays(1, held, held, inner.dim, inner.head_dim):
        last = 2 * inner.heads * inner.dim * (inner.head_dim + held)
    return 2 * width * (inner.dim / length + 1) * columns, last


def _kept(pattern: Pattern, length: int) -> int:
    """How many of the tokens so far `KeepAll` still holds: those that the next token may see."""
    return int(pattern.keeps(torch.arange(length), torch.tensor(length)).sum())


_keys_seen = cache(keys_seen)
