"""What it costs to choose pairs by content, and how many are left. A selector registers its own `choosing_of`."""

from functools import singledispatch
from typing import Any, NamedTuple

from formers.attention import LSH, Routing, TopBlocks
from formers.attention.select import Selector
from formers.attention.sorted.plan import Rules
from formers.report.quantity import NUMBER
from formers.spec.core import Site

BUCKET, TALLY = 4, 8  # bytes of a remembered bucket, and of how many tokens a block holds


class Asked(NamedTuple):
    """Attention at a length of N tokens.

    inner: its site inside. shown: keys that the pattern shows a query, the mean of all queries and of the last one.
    met: keys that the last query finds in a decode step, and kept: those that it leaves to the next.
    """

    inner: Site
    length: int
    shown: tuple[float, float]
    met: int
    kept: int


class Choosing(NamedTuple):
    """What a choice comes to at a length of N tokens.

    pairs: scores that are worked on for each token of a pass, whether or not the pattern shows them; last_pairs: for the
    last token, in a decode step. operations and last: alike, of choosing itself. weights: bytes that choosing reads in a
    decode step, beside parameters. token, state: bytes that it keeps, of each token and after all of them.
    """

    pairs: float
    last_pairs: float
    operations: float = 0
    last: float = 0
    weights: float = 0
    token: float = 0
    state: float = 0


@singledispatch
def choosing_of(select: Selector, rule: Any, asked: Asked) -> Choosing:
    """What a selector comes to, given the rule built of it. Where nothing else is registered: it costs and saves nothing."""
    return Choosing(*asked.shown)


@choosing_of.register
def _lsh(select: LSH, rule: Any, asked: Asked) -> Choosing:
    """Hashing multiplies each key by half as many axes as there are buckets; buckets are remembered."""
    heads, width = asked.inner.heads, asked.inner.head_dim

    def hashing(length: int) -> int:
        return 2 * heads * width * select.rounds * sum(count // 2 for count in rule.factors(length))

    pairs, last = asked.shown
    if asked.length > rule.plain_below:
        pairs = _chunked(rule.rules, select.rounds, asked.length)
    if asked.met > rule.plain_below:
        last = select.rounds * min(rule.rules.reach, asked.met) if select.strict else min(rule.width, asked.met)
    token = BUCKET * heads * select.rounds
    before = max(1, asked.length - 1)  # decoding keeps the number of buckets that it began with
    return Choosing(pairs, last, hashing(asked.length), hashing(before), 0, token, token * asked.kept)


@choosing_of.register
def _top_blocks(select: TopBlocks, rule: Any, asked: Asked) -> Choosing:
    """A query is multiplied with the mean key of each block that it may choose; sums of blocks are remembered."""
    heads, width, block = asked.inner.heads, asked.inner.head_dim, select.block
    count = -(-asked.length // block)
    sizes = [block] * (count - 1) + [asked.length - block * (count - 1)]
    free = [number if rule.causal else count - 1 for number in range(count)]
    told = [(size * min(select.count, others), size * others) for size, others in zip(sizes, free, strict=True)]
    chosen, compared = (sum(each) / asked.length for each in zip(*told, strict=True))
    each = 2 * heads * width
    held = NUMBER * heads * width + TALLY
    return Choosing(
        block * (1 + chosen),
        block * (1 + min(select.count, count - 1)),
        each * compared,
        each * max(1, count - 1),
        0,
        held / block,
        held * count,
    )


@choosing_of.register
def _routing(select: Routing, rule: Any, asked: Asked) -> Choosing:
    """Queries or keys, or both, are multiplied with every centroid; a balanced choice looks at all of them in every step."""
    heads, width, length = asked.inner.heads, asked.inner.head_dim, asked.length
    centroids = heads * width * select.clusters
    if not select.balanced:
        token, last = BUCKET * heads, min(rule.rules.reach, asked.met)
        products = 2 * centroids
        pairs = _chunked(rule.rules, 1, length)
        return Choosing(pairs, last, products, products, NUMBER * centroids, token, token * asked.kept)
    sides = 1 if select.joint else 2
    members, last_members = (min(n, select.window or -(-n // select.clusters)) for n in (length, asked.met))
    products, token = 2 * centroids * sides, 0 if select.joint else NUMBER * heads * width
    return Choosing(
        select.clusters * members**2 / length,
        select.clusters * last_members**2,
        products,
        products * asked.met,
        NUMBER * centroids,
        token,
        token * asked.kept,
    )


def _chunked(rules: Rules, rounds: int, length: int) -> float:
    """Pairs for each token in rounds of sorted chunks, the last of which may be filled up."""
    chunks = -(-length // rules.chunk)
    return rounds * chunks * rules.chunk * (1 + rules.before + rules.after) * rules.chunk / length
