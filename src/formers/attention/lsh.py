"""Locality-sensitive hashing: tokens that point the same way fall into one bucket, and meet."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from formers import native
from formers.attention.buckets import by_bucket, recalled, same_bucket
from formers.attention.plan import Plan
from formers.attention.select import EVERY, Chosen, Selector, SelectorRule
from formers.attention.sorted.plan import Rules, SortedPlan
from formers.call import Call
from formers.places import Places
from formers.spec.core import Site
from formers.state import Log

HASHED = 1 << 11  # tokens hashed at a time, so that what comes between stays in a CPU's cache
FACTORED = 128  # more buckets than this are the product of two hashes


class LSH(Selector):
    """Sort by hash, cut into chunks; a chunk meets itself and its neighbours. Reformer, Kitaev et al. 2020,
    arXiv:2001.04451, section 2. Use it with projection=SharedQK(), position=SelfLast(), scale=1.0.

    chunk: tokens in a chunk. rounds: independent hashes, whose results are merged into one softmax. buckets: of a hash,
    an even number, or a tuple of such whose product counts (each a hash of its own); None: twice as many as the sequence
    has chunks, which decoding tells anew, for all tokens, as often as it has doubled.
    before, after: neighbours of a chunk; after=None: none in a decoder, as many as before in an encoder.
    same_bucket: only tokens of one bucket meet (otherwise whoever shares a chunk or its neighbours).
    once: a pair that meets in several rounds counts once, as in the paper; False: as often, as in trax and transformers.
    wrap: the first chunk of a round has the last of the round before as its neighbour, as in those two.
    plain_below: sequences up to this length attend to everything, which is then cheaper; None: as many tokens as a query
    would meet.
    strict: only the `before * chunk` latest tokens of one bucket meet, itself included. Buckets and borders are then known
    from the past alone, and decoding equals one pass.

    Values never flow from later tokens to earlier ones. But unless strict, later tokens move the borders of chunks, and
    so change which earlier ones meet; and decoding is approximate: a new token meets those of its buckets first, then
    the latest others, as many as in a full pass.

    Rotations are drawn from the seed of the call: training has new ones in every step, evaluation always the same.
    Padding is sorted behind all buckets and met by nobody. But buckets=None and plain_below go by the length of the batch,
    its padding included: give both where a row must come out as it does alone, which it never does with wrap=True.
    """

    chunk: int = 64
    rounds: int = 4
    buckets: int | tuple[int, ...] | None = None
    before: int = 1
    after: int | None = None
    same_bucket: bool = False
    once: bool = True
    wrap: bool = False
    plain_below: int | None = None
    strict: bool = False

    @property
    def prefix_stable(self) -> bool:
        return self.strict

    @property
    def stable_form(self) -> Selector:
        back = {"before": max(1, self.before), "after": None, "wrap": False, "plain_below": None}
        return self.replace(strict=True, buckets=self.buckets or 64, **back)

    @property
    def of_keys(self) -> bool:
        return True

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.chunk < 1 or self.rounds < 1 or self.before < 0 or (self.after or 0) < 0:
            values = f"chunk={self.chunk}, rounds={self.rounds}, before={self.before} and after={self.after}"
            yield f"{values}: chunks and rounds are at least 1, neighbours at least 0", "chunk=64, rounds=4, before=1"
        if self.buckets == ():
            yield "a hash of no buckets chooses nothing", "buckets=64"
        odd = [count for count in as_factors(self.buckets) if count < 2 or count % 2]
        if odd:
            mended = tuple(max(2, count + count % 2) for count in as_factors(self.buckets))
            what = f"a hash tells a direction from its opposite, so {odd[0]} buckets cannot be: their number is even"
            yield what, f"buckets={mended if len(mended) > 1 else mended[0]}"
        if site.causal and self.after:
            yield f"a decoder sees nothing of the {self.after} chunks after its own", "after=0"
        if self.wrap and self.once:
            yield "pairs are not counted across rounds where chunks wrap from one into the next", "once=False"
        if self.strict:
            yield from self._strict_problems()

    def _strict_problems(self) -> Iterator[tuple[str, str]]:
        if self.buckets is None:
            yield "strict hashing needs a number of buckets that does not grow with the sequence", "buckets=64"
        if self.wrap or self.after or self.plain_below or self.before < 1:
            rest = f"before={self.before}, after={self.after}, wrap={self.wrap}, plain_below={self.plain_below}"
            yield (
                f"strict hashing looks back from where a token stands, which {rest} contradicts",
                ("before=1, after=None, wrap=False, plain_below=None"),
            )

    def build(self, site: Site) -> SelectorRule:
        return LSHRule(self, site)


class Hashed(NamedTuple):
    """The buckets (B, H, S, R) of the tokens so far, and of how many each hash chooses."""

    buckets: Log
    factors: tuple[int, ...]


class LSHRule(SelectorRule):
    def __init__(self, spec: LSH, site: Site) -> None:
        super().__init__()
        self.spec, self.site = spec, site
        after = (0 if site.causal else spec.before) if spec.after is None else spec.after
        reach = spec.before * spec.chunk if spec.strict else 0
        same = spec.same_bucket or spec.strict
        self.rules = Rules(spec.chunk, spec.before, after, spec.wrap, reach, same, spec.once)
        self.width = (1 + spec.before + after) * spec.chunk * spec.rounds
        self.plain_below = 0 if spec.strict else self.width if spec.plain_below is None else spec.plain_below

    @torch.no_grad()
    def choose(
        self, q: Tensor, k: Tensor, call: Call, to: Places, past: Hashed | None = None, heads: slice = EVERY
    ) -> Chosen:
        """Buckets (B, H, R, S), int32, of all keys: hashing knows no length, so they are those of the queries too."""
        new, factors = call.at.length, self.factors(to.length)
        if past is None or math.prod(factors) >= 2 * math.prod(past.factors):
            log = Log(self.hash(k, factors, call, heads).mT)  # a long text wants more buckets than its beginning
        else:
            factors = past.factors
            latest = self.hash(k[:, :, k.shape[2] - new :], factors, call, heads)
            log = past.buckets.last(to.length - new).extend(latest.mT)
        return Chosen(log.view.mT, Hashed(log, factors) if call.remember else None)

    def factors(self, length: int) -> tuple[int, ...]:
        """Of how many buckets each hash chooses in a sequence of that length."""
        if self.spec.buckets is not None:
            return as_factors(self.spec.buckets)
        count = 2 * max(1, length // self.spec.chunk)
        if count <= FACTORED:
            return (count,)
        first = 2 ** math.ceil(math.log2(math.sqrt(count)))
        return first, 2 * (count // (2 * first))

    def hash(self, x: Tensor, factors: tuple[int, ...], call: Call, heads: slice = EVERY) -> Tensor:
        """x (B, H, T, D) -> buckets (B, H, R, T), int32: the nearest of the axes of a random rotation and their opposites."""
        chance, rounds = call.chance(self.site.path), self.spec.rounds
        bucket = torch.zeros(*x.shape[:2], rounds, x.shape[2], dtype=torch.int32, device=x.device)
        stride = 1
        for count in factors:
            shape = self.site.heads, self.site.head_dim, rounds, count // 2
            axes = torch.randn(shape, generator=chance)[heads].to(x).flatten(2)
            for start in range(0, x.shape[2], HASHED):
                turned = (x[:, :, start : start + HASHED] @ axes).unflatten(-1, (rounds, -1))
                add_nearest(turned, bucket[..., start : start + HASHED], stride)
            stride *= count
        return bucket

    def plan(self, choices: Tensor, at: Places, to: Places) -> Plan | SortedPlan | None:
        if to.length <= self.plain_below:
            return None
        if self.spec.strict:
            return by_bucket(choices, at, to, self.rules, same_bucket, self.rules.reach)
        return by_bucket(choices, at, to, self.rules, recalled, min(self.width, to.length))


def add_nearest(turned: Tensor, bucket: Tensor, stride: int) -> None:
    """Add to buckets (B, H, R, T) the nearest of the axes and their opposites of `turned` (B, H, T, R, A), times stride."""
    if native.refuses_hashing(turned) is None:
        native.add_nearest(turned, bucket, stride)
    else:
        bucket += stride * torch.cat([turned, -turned], -1).argmax(-1).mT.int()


def as_factors(buckets: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """A number of buckets as a product; () for none."""
    return () if buckets is None else (buckets,) if isinstance(buckets, int) else buckets
