"""Native attention by blocks against its meaning, for every kind of pattern, on every instruction set of this machine."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from formers import Blocks, Causal, Everything, Window
from formers.attention.marks import asks_for_marks
from formers.attention.oracle import attend_dense
from formers.attention.pattern import Pattern, Same
from formers.attention.patterns.by_head import ByHead
from formers.attention.patterns.dilated import Dilated
from formers.attention.patterns.global_local import GlobalLocal
from formers.attention.patterns.random_blocks import RandomBlocks
from formers.attention.patterns.seen_by_all import Global, SeenByAll, SeesAll
from formers.attention.patterns.strided import Strided, Summary
from formers.attention.sorted.drop import Drop
from formers.attention.visits.op import attend_visits
from formers.attention.visits.table import Visits, plan_visits
from formers.native import visits as native
from formers.places import Places, keys, queries

pytestmark = pytest.mark.usefixtures("built")

HEADS = 4
PATTERNS = {
    "causal": Causal(),
    "everything": Everything(),
    "window": Window(5),
    "wide causal window": Causal() & Window(70),
    "blocks": Causal() & Blocks(64, 1),
    "merged strided": Causal() & (Window(9) | Strided(16)),
    "merged fixed": Causal() & (Blocks(32) | Summary(32, 28, 4)),
    "global": Global(3) | Window(6),
    "many global": Causal() & (Window(90) | Global(70)),
    "heads apart": ByHead((Causal() & Window(5), Causal() & Strided(7))),
    "dilated": Causal() & Dilated(9, 3),
    "marks": SeenByAll() | SeesAll() | Window(9),
}


def a_batch(length: int, pad: str) -> Places:
    """Two rows, the second of which is padded in that manner, and some tokens with the mark "global"."""
    generator = torch.Generator().manual_seed(length)
    marks = {"global": (torch.rand(2, length, generator=generator) < 0.06).long()}
    if pad == "none":
        return Places.run(5, length, None, marks)
    real = torch.ones(2, length, dtype=torch.bool)
    if pad == "left":
        real[1, : length // 3] = False
    elif pad == "right":
        real[1, length - length // 3 :] = False
    else:
        real = torch.rand(2, length, generator=generator) < 0.7
    return Places((real.cumsum(1) - 1).clamp(min=0), real, marks)


def inputs(queries: int, keys: int, width: int = 20, value_width: int = 12) -> list[Tensor]:
    """q, k and v with two key heads, whose rows are not contiguous."""
    generator = torch.Generator().manual_seed(7)
    shapes = ((queries, HEADS, width), (keys, 2, width), (keys, 2, value_width))
    made = (torch.randn(2, *shape, generator=generator, dtype=torch.float32) for shape in shapes)
    return [t.transpose(1, 2) for t in made]


def meaning(q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, at: Places, to: Places) -> Tensor:
    mask = pattern.visible(queries(at), keys(to), torch.arange(HEADS)[:, None, None])
    mask = mask if to.real is None else mask & to.real[:, None, None]
    return attend_dense(q, *(t.repeat_interleave(2, 1) for t in (k, v)), mask, scale=0.3)


def check(
    visits: Visits, pattern: Pattern, at: Places, to: Places, kernel: str | None = None, threads: int = 2
) -> None:
    """Outputs and gradients at all real queries."""
    given = inputs(at.length, to.length)
    exact = [t.double().requires_grad_() for t in given]
    want = meaning(*exact, pattern, at, to)
    real = torch.ones(2, at.length, dtype=torch.bool) if at.real is None else at.real
    grad = torch.randn(want.shape, dtype=torch.float32, generator=torch.Generator().manual_seed(1))
    grad = torch.where(real[:, None, :, None], grad, 0)
    want_grads = torch.autograd.grad(want, exact, grad.double())
    told = (visits.real, visits.table, native.Setting(0.3))
    out, lse = native.visit_forward(*given, *told, kernel=kernel, threads=threads)
    grads = native.visit_backward(
        grad,
        native.visit_deltas(grad, out, kernel=kernel, threads=threads),
        lse,
        *given,
        *told,
        kernel=kernel,
        threads=threads,
    )
    shown = real[:, None, :, None].expand_as(out)
    torch.testing.assert_close(out[shown].double(), want[shown], atol=1e-5, rtol=1e-5)
    for got, expected in zip(grads, want_grads, strict=True):
        torch.testing.assert_close(got.double(), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("pad", ["none", "left", "right", "anywhere"])
@pytest.mark.parametrize("name", PATTERNS)
def test_every_pattern_and_padding(name: str, pad: str) -> None:
    for length in (1, 63, 200):
        at = a_batch(length, pad)
        check(plan_visits(PATTERNS[name], at, at, HEADS), PATTERNS[name], at, at)


@pytest.mark.parametrize("name", PATTERNS)
def test_every_kernel(name: str, kernel: str) -> None:
    at = a_batch(150, "right")
    check(plan_visits(PATTERNS[name], at, at, HEADS), PATTERNS[name], at, at, kernel)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("pad", ["none", "left"])
def test_queries_that_continue_a_text(name: str, pad: str) -> None:
    to = a_batch(170, pad)
    at = to.last(70)
    check(plan_visits(PATTERNS[name], at, to, HEADS), PATTERNS[name], at, to)


def test_the_number_of_threads_changes_nothing() -> None:
    at = a_batch(300, "none")
    visits, given = plan_visits(PATTERNS["merged strided"], at, at, HEADS), inputs(300, 300)
    told, found = (visits.real, visits.table, native.Setting(0.3, 0.2, 9)), []
    for threads in (1, 3):
        out, lse = native.visit_forward(*given, *told, threads=threads)
        one = torch.ones_like(out)
        grads = native.visit_backward(one, native.visit_deltas(one, out), lse, *given, *told, threads=threads)
        found.append((out, lse, *grads))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_a_query_that_sees_nothing_gets_zero_and_minus_infinity() -> None:
    """Alone in its block, and beside others that see something; in one order of the tokens and in two."""
    for pattern in (Strided(100) & Window(1000), Window(2) | Strided(100)):
        at, to = Places.run(150, 70), Places.run(0, 60)
        visits = plan_visits(pattern, at, to, HEADS)
        mask = pattern.visible(queries(at), keys(to), torch.zeros(1, 1, 1, dtype=torch.long))[0, 0]
        out, lse = native.visit_forward(*inputs(70, 60), None, visits.table, native.Setting(1.0))
        blind = ~mask.any(1)
        assert blind.any() and not blind.all()
        assert not out[:, :, blind].any() and bool(lse[:, :, blind].isneginf().all())
        assert bool(lse[:, :, ~blind].isfinite().all())


@pytest.mark.parametrize("name", ["causal", "merged strided", "marks"])
def test_dropout_keeps_the_mean_and_the_gradient_of_what_was_kept(name: str) -> None:
    """The same seed drops the same weights, forwards and backwards; many seeds average out."""
    at = a_batch(90, "none")
    visits = plan_visits(PATTERNS[name], at, at, HEADS)
    q, k, v = (t.requires_grad_() for t in inputs(90, 90))

    def dropped(seed: int) -> Tensor:
        return attend_visits(q, k, v, visits.real, visits.table, 0.3, Drop(0.3, torch.tensor(seed)))

    assert torch.equal(dropped(1), dropped(1)) and not torch.equal(dropped(1), dropped(2))
    mean = torch.stack([dropped(seed).detach() for seed in range(300)]).mean(0)
    torch.testing.assert_close(mean, meaning(q, k, v, PATTERNS[name], at, at).detach(), atol=0.35, rtol=0)
    grad, towards = torch.autograd.grad(dropped(3).square().sum(), v), torch.randn_like(v)
    step = 1e-2
    ahead, behind = (v.detach() + sign * step * towards for sign in (1, -1))
    change = [
        attend_visits(q, k, moved, visits.real, visits.table, 0.3, Drop(0.3, torch.tensor(3))).double().square().sum()
        for moved in (ahead, behind)
    ]
    torch.testing.assert_close(
        (change[0] - change[1]) / (2 * step), (grad[0] * towards).double().sum(), rtol=1e-3, atol=1e-2
    )


def test_narrow_types_are_widened() -> None:
    at = a_batch(130, "none")
    visits = plan_visits(PATTERNS["window"], at, at, HEADS)
    narrow = [t.bfloat16() for t in inputs(130, 130)]
    out = attend_visits(*narrow, visits.real, visits.table, 0.3)
    assert out.dtype == torch.bfloat16
    wide = attend_visits(*(t.float() for t in narrow), visits.real, visits.table, 0.3)
    assert torch.equal(out, wide.bfloat16())


def test_what_is_refused() -> None:
    exact = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    assert "less exact" in str(native.refuses_visits(exact))
    assert native.refuses_visits(exact.float(), exact.half()) is None


def test_a_pattern_that_asks_for_marks_is_found_out() -> None:
    """By looking, not by its word: a plan without marks would be wrong where they are given."""
    asking = {name for name, pattern in PATTERNS.items() if asks_for_marks(pattern)}
    assert asking == {"marks"}
    assert asks_for_marks(GlobalLocal(3)) and asks_for_marks(Causal() & Same("document"))
    assert not asks_for_marks(RandomBlocks(4, 1, heads=4, length=64))


def test_the_operator_keeps_its_word() -> None:
    """To autograd, to torch.compile and to whoever looks at shapes alone."""
    at = Places.run(0, 100)
    visits = plan_visits(PATTERNS["merged strided"], at, at, HEADS)
    views = [t for plan in visits.table.plans for view in plan for t in view]
    table = (
        visits.table.which,
        views,
        [len(plan) for plan in visits.table.plans],
        visits.table.merged,
        visits.table.places,
    )
    given = [t.requires_grad_() for t in inputs(100, 100)]
    torch.library.opcheck(torch.ops.formers.visits.default, (*given, None, None, *table, 0.3, 0.0))


def one_row(name: str) -> tuple[list[Tensor], Visits, Places]:
    """Of one row the backward pass works on some pieces at a time."""
    marks = {"global": (torch.rand(1, 700, generator=torch.Generator().manual_seed(2)) < 0.02).long()}
    at = Places.run(5, 700, None, marks)
    return [t[:1] for t in inputs(700, 700)], plan_visits(PATTERNS[name], at, at, HEADS), at


@pytest.mark.parametrize("name", PATTERNS)
def test_pieces_that_reach_the_same_keys_add_up(name: str) -> None:
    given, visits, at = one_row(name)
    exact = [t.double().requires_grad_() for t in given]
    want = torch.autograd.grad(meaning(*exact, PATTERNS[name], at, at).sum(), exact)
    rough = [t.requires_grad_() for t in given]
    got = torch.autograd.grad(attend_visits(*rough, visits.real, visits.table, 0.3).sum(), rough)
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine.double(), theirs, atol=2e-5, rtol=1e-4)


def test_pieces_have_room_for_those_keys_alone_that_they_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the gradients themselves, for a window less than twice those of keys and values: not four times."""
    (q, k, v), visits, _ = one_row("window")
    out, lse = native.visit_forward(q, k, v, None, visits.table, native.Setting(0.3))
    asked: list[int] = []

    def new_empty(like: Tensor, shape: Sequence[int]) -> Tensor:
        asked.append(math.prod(shape))
        return like.new_empty(shape)

    monkeypatch.setattr(native.kept, "new_empty", new_empty)
    native.visit_backward(out, native.visit_deltas(out, out), lse, q, k, v, None, visits.table, native.Setting(0.3))
    once = k.numel() + v.numel()
    assert q.numel() + 2 * once < sum(asked) < q.numel() + 3 * once


def test_what_autograd_stores_is_not_widened() -> None:
    given, visits, _ = one_row("window")
    stored: list[Tensor] = []

    def note(t: Tensor) -> Tensor:
        stored.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        attend_visits(*(t.bfloat16().requires_grad_() for t in given), None, visits.table, 0.3)
    kinds = [t.dtype for t in stored if t.is_floating_point() and t.dim() == 4]
    assert kinds == [torch.bfloat16] * 4
