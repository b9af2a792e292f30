"""The search of a large memory finds what sorting all scores finds, however the keys lie."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from formers.attention.memorizing import ApproximateSearch, ExactSearch, buckets, search
from formers.attention.memorizing.reach import Reach, pieces_of
from formers.places import Places

COUNT, QUERIES, KEYS, WIDTH = 5, 70, 5_003, 16


@pytest.fixture(params=["one precision", "half first"])
def screened(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With and without a search in half precision, whatever this processor would do."""
    half = request.param == "half first"
    monkeypatch.setattr(buckets, "screens", lambda q: half and q.dtype == torch.float32)
    return half


def drawn(spread: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    q, k = (F.normalize(torch.randn(n, WIDTH, generator=generator), dim=-1) for n in (QUERIES, KEYS))
    if spread == "alike":  # all scores lie within what bfloat16 rounds
        k = F.normalize(torch.ones(WIDTH) + 1e-3 * k, dim=-1)
        q = F.normalize(torch.ones(WIDTH) + 0.1 * q, dim=-1)
    if spread == "opposed":  # no score is above 0
        k, q = F.normalize(k.abs(), dim=-1), -F.normalize(q.abs(), dim=-1)
    if spread == "doubled":  # each key many times over: any of the equal ones will do
        k = k[:100].repeat(51, 1)[:KEYS]
    return q, k


def nowhere() -> Reach:
    return Reach(
        torch.zeros(1, QUERIES, dtype=torch.int64), torch.zeros(1, QUERIES, dtype=torch.int64), torch.arange(KEYS)[None]
    )


def reaches() -> dict[str, Reach | None]:
    lo = torch.arange(QUERIES)[None] * 50
    documents = torch.arange(QUERIES)[None] % 7, torch.arange(KEYS)[None] // 50 % 9
    real = torch.rand(1, KEYS, generator=torch.Generator().manual_seed(1)) < 0.3
    return {
        "all": None,
        "a window each": Reach(lo, lo + 2_000, torch.arange(KEYS)[None]),
        "few": Reach(lo, lo + 3, torch.arange(KEYS)[None]),
        "documents with padding": Reach(lo, lo + 4_000, torch.arange(KEYS)[None], real, documents),
        "nothing": nowhere(),
    }


def scores_of(q: Tensor, k: Tensor, slots: Tensor) -> Tensor:
    found = torch.einsum("td,tcd->tc", q, k[slots.clamp(min=0)])
    return found.masked_fill(slots < 0, -torch.inf).sort(-1).values


@pytest.mark.parametrize("reach", reaches())
@pytest.mark.parametrize("spread", ["even", "alike", "opposed", "doubled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_nearest_are_found(spread: str, reach: str, dtype: torch.dtype, screened: bool) -> None:
    (q, k), may = (t.to(dtype) for t in drawn(spread)), reaches()[reach]
    slots = buckets.nearest_by_buckets(q, k, COUNT, may, certain=True)
    scores = q @ k.mT
    if may is not None:
        scores = scores.masked_fill(~may.among(slice(None))[0], -torch.inf)
        assert may.at(slots.clamp(min=0))[slots >= 0].all()
    wanted = scores.topk(COUNT).values.sort(-1).values
    room = 0 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(scores_of(q, k, slots), wanted, atol=max(room, 1e-12), rtol=0)
    told = slots.where(slots >= 0, -1 - torch.arange(COUNT))  # nothing is named twice
    assert all(len(set(row)) == COUNT for row in told.tolist())


def test_what_rounding_may_hide_is_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among keys that are nearly the same half precision alone is often wrong; that is known, and mended."""
    monkeypatch.setattr(buckets, "screens", lambda q: True)
    q, k = drawn("alike")
    wanted = (q @ k.mT).topk(COUNT).values.sort(-1).values
    hasty, certain = (scores_of(q, k, buckets.nearest_by_buckets(q, k, COUNT, None, certain=c)) for c in (False, True))
    assert ((wanted - hasty).amax(1) > 1e-6).any()
    torch.testing.assert_close(certain, wanted, atol=1e-6, rtol=0)


def test_random_keys_need_no_second_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "screens", lambda q: True)
    generator, opened = torch.Generator().manual_seed(0), []
    q, k = (F.normalize(torch.randn(n, 64, generator=generator), dim=-1) for n in (64, 60_000))
    plain = buckets._opened
    monkeypatch.setattr(buckets, "_opened", lambda q, *rest: opened.append(len(q)) or plain(q, *rest))
    buckets.nearest_by_buckets(q, k, 32, None, certain=True)
    assert sum(opened[1:]) <= 6


def test_few_scores_and_many_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """For several rows and heads, and for keys that are part of a larger buffer."""
    generator = torch.Generator().manual_seed(2)
    q, k = (F.normalize(torch.randn(2, 3, n, 8, generator=generator), dim=-1) for n in (20, 900))
    k, found = k[:, :, 100:], []
    lo = torch.randint(0, 300, (2, 20), generator=generator)
    reach = Reach(lo, lo + 400, torch.arange(800)[None])
    for few in (search.FEW, 0):
        monkeypatch.setattr(search, "FEW", few)
        found += [search.nearest(q, k, 7, reach, kind()).sort(-1).values for kind in (ExactSearch, ApproximateSearch)]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


def test_slots_that_nobody_may_retrieve_are_not_looked_through() -> None:
    """Of a stream, what lies too far back; of documents, those of others; and the segment that is being read."""
    (run,) = pieces_of(Places.run(40, 8), Places.run(5, 43), 8, 16)
    assert (run.queries, run.slots, run.reach) == (slice(0, 8), slice(19, 35), None)
    first, second = pieces_of(Places.run(44, 8), Places.run(5, 47), 8, 16)
    assert (first.queries, first.slots) == (slice(0, 4), slice(19, 35))
    assert (second.queries, second.slots) == (slice(4, 8), slice(27, 43))
    assert not pieces_of(Places.run(0, 8), Places.run(0, 8), 8, 16)
    document = (torch.arange(48) >= 30).long()[None]
    at, to = Places.run(40, 8, marks={"document": document[:, 40:]}), Places.run(0, 48, marks={"document": document})
    (within,) = pieces_of(at, to, 8, 16)
    assert (within.slots, within.reach) == (slice(30, 40), None)
