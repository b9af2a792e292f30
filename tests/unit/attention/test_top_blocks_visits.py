"""Chosen blocks as visits, in fp32: the tiles of the same plan, and every pair and gradient theirs."""

import pytest
import torch
from torch import Tensor

from formers import ALiBi, Causal, Everything, Window
from formers.attention.backends import BACKENDS, ChosenBlocks, TileExecutor, Visits
from formers.attention.pattern import Pattern
from formers.attention.request import Request, for_each
from formers.attention.top_blocks.plan import BlocksPlan
from formers.attention.top_blocks.rule import TopBlocks
from formers.call import Call
from formers.places import Memo, Places
from formers.position import NoPosition, Position
from formers.spec import Site

H, D, E, T = 4, 8, 5, 150
PADDED = [
    [True] * T,
    [False] * 9 + [True] * (T - 9),
    [True] * 40 + [False] * (T - 40),
    [True] * 3 + [False] * 70 + [True] * (T - 73),
]


def places(rows: list[list[bool]]) -> Places:
    real = torch.tensor(rows)
    return Places((real.cumsum(1) - 1).clamp(min=0), real)


WHERE = {"run": Places.run(0, T), "late run": Places.run(70, T), "padded": places(PADDED)}


def qkv(kv_heads: int = H) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(len(PADDED), H, T, D), (len(PADDED), kv_heads, T, D), (len(PADDED), kv_heads, T, E)]
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def request(
    at: Places,
    pattern: Pattern,
    block: int,
    count: int,
    kv_heads: int = H,
    position: Position | None = None,
    dropout: float = 0.0,
) -> Request:
    site = Site(dim=H * D, causal=pattern.causal, heads=H, kv_heads=kv_heads, head_dim=D)
    q, k, v = qkv(kv_heads)
    rule = TopBlocks(block, count).build(site)
    plan = rule.plan(rule.choose(q, for_each(q, k), Call(at), at).choices, at, at)
    placed = (position or NoPosition()).build(site)
    return Request(q, k, v, at, at, pattern, placed, 0.4, dropout, Memo(), plan)


def outcome(out: Tensor, asked: Request) -> tuple[Tensor, ...]:
    """The output at real tokens, and the gradients of something that goes by every one of its numbers."""
    real = asked.at.real
    if real is not None:
        out = out * real[:, None, :, None]
    slope = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    return out, *torch.autograd.grad((out * slope).sum(), (asked.q, asked.k, asked.v))


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("pattern", [Causal(), Everything()], ids=repr)
@pytest.mark.parametrize("kv_heads", [H, 2, 1])
@pytest.mark.parametrize(("block", "count"), [(1, 3), (5, 2), (16, 4), (64, 1), (70, 1), (100, 3), (200, 2)])
def test_visits_are_the_tiles(where: str, pattern: Pattern, kv_heads: int, block: int, count: int) -> None:
    asked = request(WHERE[where], pattern, block, count, kv_heads)
    assert next(backend for backend in BACKENDS if backend.refuses(asked) is None).name == "chosen blocks"
    ours, tiles = (outcome(backend.run(asked), asked) for backend in (ChosenBlocks(), TileExecutor()))
    torch.testing.assert_close(ours, tiles, atol=2e-6, rtol=2e-5)


@pytest.mark.parametrize("pattern", [Causal(), Everything()], ids=repr)
def test_all_blocks_are_full_attention_and_the_same_weights_are_dropped(pattern: Pattern) -> None:
    asked = request(WHERE["padded"], pattern, 16, 20, dropout=0.3)
    found = []
    for backend, plan in ((ChosenBlocks(), asked.plan), (Visits(), None)):
        torch.manual_seed(3)
        found.append(outcome(backend.run(asked._replace(plan=plan)), asked))
    torch.testing.assert_close(*found, atol=2e-6, rtol=2e-5)
    without = outcome(ChosenBlocks().run(asked._replace(dropout=0.0)), asked)
    assert (found[0][0] - without[0]).abs().max() > 0.1


def test_blocks_that_may_not_be_chosen_show_nothing() -> None:
    asked = request(WHERE["run"], Causal(), 16, 2)
    assert isinstance(asked.plan, BlocksPlan)
    later = asked.plan.choices.clone()
    later[..., 0] = torch.arange(T) // 16
    later[..., 1] = 8
    alone, odd = (
        ChosenBlocks().run(asked._replace(plan=BlocksPlan(choices, 16, asked.at, asked.to)))
        for choices in (torch.full_like(later, -1), later)
    )
    assert torch.equal(alone[:, :, :144], odd[:, :, :144])


def test_a_later_piece_meets_what_the_whole_meets() -> None:
    asked = request(WHERE["run"], Causal(), 16, 2)
    assert isinstance(asked.plan, BlocksPlan)
    whole, at = ChosenBlocks().run(asked), Places.run(90, T - 90)
    plan = BlocksPlan(asked.plan.choices[:, :, 90:], 16, at, asked.to)
    piece = ChosenBlocks().run(asked._replace(q=asked.q[:, :, 90:], at=at, plan=plan))
    torch.testing.assert_close(piece, whole[:, :, 90:])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"pattern": Causal() & Window(10)}, "shows neither all pairs"),
        ({"position": ALiBi()}, "changes the scores"),
    ],
    ids=str,
)
def test_what_it_cannot_do_goes_by_tiles(changes: dict[str, object], why: str) -> None:
    asked = request(WHERE["run"], **{"pattern": Causal(), "block": 16, "count": 2, **changes})  # type: ignore[arg-type]
    assert why in str(ChosenBlocks().refuses(asked))
    assert [backend.name for backend in BACKENDS if backend.refuses(asked) is None] == ["tiles"]


def test_fp64_and_a_few_queries_go_by_tiles() -> None:
    asked = request(WHERE["run"], Causal(), 16, 2)
    assert isinstance(asked.plan, BlocksPlan)
    wide = asked._replace(q=asked.q.double(), k=asked.k.double(), v=asked.v.double())
    assert "float64" in str(ChosenBlocks().refuses(wide))
    at = Places.run(T - 2, 2)
    few = asked._replace(at=at, q=asked.q[:, :, -2:], plan=BlocksPlan(asked.plan.choices[:, :, -2:], 16, at, asked.to))
    assert "one by one" in str(ChosenBlocks().refuses(few))
