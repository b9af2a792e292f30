"""Sparse Sinkhorn attention against dense attention, and its two sorting rules by themselves."""

from itertools import permutations

import pytest
import torch
from torch import Tensor

from formers.attention.oracle import attend_dense
from formers.attention.sinkhorn import SinkhornAttention
from formers.attention.sinkhorn_causal import CausalSinkhornLayer
from formers.attention.sorting import RunningLogSum, earlier_noise, pair_noise, sinkhorn, sinkhorn_causal
from formers.call import Call
from formers.places import Places
from formers.spec.core import Site
from formers.state import select

DIM = 12
CAUSAL, TWO_SIDED = Site(dim=DIM, causal=True), Site(dim=DIM)
FORMS = {
    "causal": (SinkhornAttention(3, block=4, iterations=2), CAUSAL),
    "two-sided": (SinkhornAttention(3, block=4), TWO_SIDED),
    "cut": (SinkhornAttention(3, block=4, cut=2), TWO_SIDED),
}


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def layer(form: str, **changes):
    spec, site = FORMS[form]
    return spec.replace(**changes).build(site).eval()


def whole(module, x: Tensor, mask: Tensor | None = None, seed: int = 0) -> Tensor:
    return module(x, Call(places(x, mask), seed=seed)).y


def places(x: Tensor, mask: Tensor | None = None, seen: Tensor | int = 0) -> Places:
    if mask is None:
        return Places.run(int(seen), x.shape[1])
    before = seen[:, None] if isinstance(seen, Tensor) else seen
    return Places((before + mask.cumsum(1) - 1).clamp(min=0), mask)


# The sorting rules


def test_rows_and_columns_sum_to_one() -> None:
    matrix = sinkhorn(torch.randn(2, 3, 6, 6), 60)
    ones = torch.ones(2, 3, 6)
    torch.testing.assert_close(matrix.sum(-1), ones, rtol=0, atol=1e-3)
    torch.testing.assert_close(matrix.sum(-2), ones, rtol=0, atol=1e-3)


def test_what_is_not_allowed_gets_nothing_and_the_rest_still_sums_to_one() -> None:
    allowed = ~torch.eye(5, dtype=torch.bool)
    matrix = sinkhorn(torch.randn(5, 5), 100, allowed)
    assert not matrix.diagonal().any()
    torch.testing.assert_close(matrix.sum(-1), torch.ones(5), rtol=0, atol=1e-3)
    torch.testing.assert_close(matrix.sum(-2), torch.ones(5), rtol=0, atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_a_low_temperature_gives_the_best_permutation(seed: int) -> None:
    scores = torch.randn(5, 5, generator=torch.Generator().manual_seed(seed))
    best = max(permutations(range(5)), key=lambda p: sum(float(scores[i, j]) for i, j in enumerate(p)))
    matrix = sinkhorn(scores / 0.005, 3000)
    torch.testing.assert_close(matrix, torch.eye(5)[list(best)], rtol=0, atol=1e-3)


def test_huge_scores_stay_finite_in_single_precision() -> None:
    scores = (1e4 * torch.randn(4, 4, dtype=torch.float32)).requires_grad_()
    matrix = sinkhorn(scores, 8)
    matrix.square().sum().backward()
    assert matrix.isfinite().all() and scores.grad.isfinite().all()


def test_running_sums_are_those_of_torch() -> None:
    terms = (5 * torch.randn(2, 3, 7, 4)).requires_grad_()
    torch.testing.assert_close(RunningLogSum.apply(terms), terms.logcumsumexp(-2))
    assert torch.autograd.gradcheck(RunningLogSum.apply, (terms,))


def causal_by_hand(scores: Tensor, iterations: int) -> Tensor:
    """In plain numbers, entry by entry."""
    count = len(scores)
    matrix = [[float(scores[i, j].exp()) if j < i else 0.0 for j in range(count)] for i in range(count)]
    for _ in range(iterations):
        matrix = [[m / (sum(row) or 1) for m in row] for row in matrix]
        sums = [[sum(matrix[r][j] for r in range(i + 1)) or 1 for j in range(count)] for i in range(count)]
        matrix = [[matrix[i][j] / sums[i][j] for j in range(count)] for i in range(count)]
    return torch.tensor([[m / (sum(row) or 1) for m in row] for row in matrix])


@pytest.mark.parametrize("iterations", [1, 2, 7])
def test_the_causal_rule_by_hand(iterations: int) -> None:
    scores = torch.randn(6, 6)
    earlier = torch.ones(6, 6).tril(-1).bool()
    matrix, _ = sinkhorn_causal(scores[None, None], iterations, earlier)
    torch.testing.assert_close(matrix[0, 0], causal_by_hand(scores, iterations))


def test_the_causal_rule_goes_on_where_it_stopped() -> None:
    scores, earlier = torch.randn(2, 3, 7, 7), torch.ones(7, 7).tril(-1).bool()
    together, _ = sinkhorn_causal(scores, 3, earlier)
    first, sums = sinkhorn_causal(scores[:, :, :3], 3, earlier[:3])
    second, _ = sinkhorn_causal(scores[:, :, 3:], 3, earlier[3:], sums)
    torch.testing.assert_close(torch.cat([first, second], 2), together)


def test_many_causal_iterations_leave_the_block_before() -> None:
    """The known limit that the docstring tells: only that block is taken by no earlier row."""
    matrix, _ = sinkhorn_causal(torch.randn(1, 1, 5, 5), 3000, torch.ones(5, 5).tril(-1).bool())
    torch.testing.assert_close(matrix[0, 0], torch.ones(4).diag(-1), rtol=0, atol=5e-3)


def test_noise_is_gumbel_and_longer_texts_keep_that_of_earlier_blocks() -> None:
    chance = torch.Generator().manual_seed(1)
    noise = pair_noise(100, chance, torch.empty(2, 3, 1, 1))
    torch.testing.assert_close(noise.mean(), torch.tensor(0.5772), rtol=0, atol=0.03)
    torch.testing.assert_close(noise.std(), torch.tensor(1.2825), rtol=0, atol=0.03)
    short, long = (earlier_noise(n, torch.Generator().manual_seed(4), torch.empty(2, 3, 1, 1)) for n in (5, 9))
    torch.testing.assert_close(long[:, :, :5, :5], short, rtol=0, atol=0)


# The layers against dense attention


def hard(module, matrix: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the layer sort by this matrix (N, N)."""
    if isinstance(module, CausalSinkhornLayer):
        monkeypatch.setattr(
            "formers.attention.sinkhorn_causal.sinkhorn_causal",
            lambda scores, steps, allowed, before=None: (
                matrix.expand_as(scores) * allowed,
                torch.zeros(*scores.shape[:2], steps, scores.shape[3]),
            ),
        )
    else:
        monkeypatch.setattr(
            "formers.attention.sinkhorn.sinkhorn", lambda scores, steps, allowed: matrix.expand_as(scores)
        )


def dense(module, x: Tensor, mask: Tensor) -> Tensor:
    """The same projections, dense attention over the pairs of mask (T, T)."""
    q = module.projection.queries(x)
    k, v = module.projection.keys_values(x)
    return module.projection.output(attend_dense(q, k, v, mask))


def shown(length: int, sorted_to: list[list[int]], block: int = 4, causal: bool = False) -> Tensor:
    """Who sees whom if block i sees the blocks sorted_to[i]."""
    mask = torch.zeros(length, length, dtype=torch.bool)
    for i in range(length):
        for j in range(length):
            mask[i, j] = j // block in sorted_to[i // block] and (j <= i or not causal)
    return mask


@pytest.mark.parametrize("length", [16, 14, 13])
def test_a_permutation_is_dense_attention_over_permuted_blocks(length: int, monkeypatch) -> None:
    module, x = layer("two-sided"), torch.randn(2, length, DIM)
    hard(module, torch.eye(4)[[2, 3, 1, 0]], monkeypatch)
    torch.testing.assert_close(whole(module, x), dense(module, x, shown(length, [[0, 2], [1, 3], [2, 1], [3, 0]])))


@pytest.mark.parametrize("length", [16, 14, 13])
def test_a_cut_permutation_is_dense_attention_to_the_blocks_it_leaves(length: int, monkeypatch) -> None:
    module, x = layer("cut"), torch.randn(2, length, DIM)
    hard(module, torch.eye(4)[[2, 3, 1, 0]], monkeypatch)
    torch.testing.assert_close(whole(module, x), dense(module, x, shown(length, [[2, 3]] * 4)))


@pytest.mark.parametrize("length", [16, 14, 13])
def test_earlier_blocks_sorted_in_are_dense_attention_to_them(length: int, monkeypatch) -> None:
    module, x = layer("causal"), torch.randn(2, length, DIM)
    hard(module, torch.eye(4)[[0, 0, 1, 0]], monkeypatch)
    seen = shown(length, [[0], [1, 0], [2, 1], [3, 0]], causal=True)
    torch.testing.assert_close(whole(module, x), dense(module, x, seen))


@pytest.mark.parametrize("form", list(FORMS))
def test_one_block_is_plain_attention(form: str) -> None:
    module, x = layer(form), torch.randn(2, 3, DIM)
    mask = torch.ones(3, 3, dtype=torch.bool)
    torch.testing.assert_close(whole(module, x), dense(module, x, mask.tril() if form == "causal" else mask))


@pytest.mark.parametrize("form", list(FORMS))
def test_values_come_from_values(form: str) -> None:
    """Without values there is no output, whatever the keys."""
    module = layer(form)
    with torch.no_grad():
        for part in (module.projection.v_proj, module.projection.out_proj):
            part.bias.zero_()
        module.projection.v_proj.weight.zero_()
    assert not whole(module, torch.randn(2, 15, DIM)).any()


def test_soft_blocks_are_mixed_by_one_matrix_for_keys_and_values() -> None:
    """Written out for one head and three whole blocks."""
    module = SinkhornAttention(1, block=2).build(TWO_SIDED).eval()
    x = torch.randn(1, 6, DIM)
    q, (k, v) = module.projection.queries(x)[0, 0], (t[0, 0] for t in module.projection.keys_values(x))
    means = x[0].view(3, 2, DIM).sum(1) / 2**0.5
    scores = module.network(means[None], means[None])[0, 0] / 0.75
    matrix = sinkhorn(scores, 8, ~torch.eye(3, dtype=torch.bool))
    rows = []
    for t in range(6):
        i = t // 2
        keys = torch.cat([sum(matrix[i, j] * k[2 * j : 2 * j + 2] for j in range(3)), k[2 * i : 2 * i + 2]])
        values = torch.cat([sum(matrix[i, j] * v[2 * j : 2 * j + 2] for j in range(3)), v[2 * i : 2 * i + 2]])
        rows.append((keys @ q[t] * DIM**-0.5).softmax(0) @ values)
    torch.testing.assert_close(whole(module, x), module.projection.output(torch.stack(rows)[None, None]))


# Padding, lengths, time


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 8, 13, 31])
def test_any_length(form: str, length: int) -> None:
    assert whole(layer(form), torch.randn(2, length, DIM)).isfinite().all()


@pytest.mark.parametrize("form", list(FORMS))
def test_a_row_alone_equals_the_row_in_a_batch(form: str) -> None:
    module, x, mask = layer(form), torch.randn(5, 19, DIM), torch.ones(5, 19, dtype=torch.bool)
    mask[0, :9] = False
    mask[1, 13:] = False
    mask[2, 3:8] = False
    mask[3, 1:] = False
    together = whole(module, x, mask)
    for i in range(5):
        torch.testing.assert_close(together[i][mask[i]], whole(module, x[i : i + 1, mask[i]])[0])


@pytest.mark.parametrize("form", list(FORMS))
def test_padding_is_not_read_and_a_row_of_it_does_no_harm(form: str) -> None:
    module, mask = layer(form), torch.ones(2, 11, dtype=torch.bool)
    mask[0, 6:], mask[1] = False, False
    x = torch.randn(2, 11, DIM).requires_grad_()
    out = whole(module, x, mask)
    assert out.isfinite().all()
    out[mask].square().sum().backward()
    assert not x.grad[~mask].any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


def test_the_future_has_no_gradient() -> None:
    module, x = layer("causal").train(), torch.randn(1, 15, DIM).requires_grad_()
    out = whole(module, x)
    for t in range(15):
        (grad,) = torch.autograd.grad(out[:, t].square().sum(), x, retain_graph=True)
        assert not grad[:, t + 1 :].any()
        assert grad[:, t].any() and (t < 4 or grad[:, : t - t % 4].any(-1).all())


def streamed(module, x: Tensor, cuts: list[int], mask: Tensor | None = None) -> Tensor:
    state, pieces = None, []
    seen: Tensor | int = 0
    for start, stop in zip([0, *cuts], [*cuts, x.shape[1]], strict=True):
        part = None if mask is None else mask[:, start:stop]
        at = places(x[:, start:stop], part, seen)
        seen = seen + (stop - start if part is None else part.sum(1))
        out = module(x[:, start:stop], Call(at), state)
        state = out.state
        pieces.append(out.y)
    return torch.cat(pieces, 1)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("cuts", [list(range(1, 23)), [1], [4, 8], [7], [16, 17, 18], [5, 10, 15, 20]], ids=str)
def test_pieces_equal_the_whole(cuts: list[int], train: bool) -> None:
    module, x = layer("causal").train(train), torch.randn(2, 23, DIM)
    torch.testing.assert_close(streamed(module, x, cuts), whole(module, x))


@pytest.mark.parametrize("cuts", [list(range(1, 23)), [4], [11, 12], [9]], ids=str)
def test_ragged_pieces_equal_the_whole(cuts: list[int]) -> None:
    module, x, mask = layer("causal"), torch.randn(4, 23, DIM), torch.ones(4, 23, dtype=torch.bool)
    mask[0, :8] = False
    mask[1, 15:] = False
    mask[2, 6:13] = False
    torch.testing.assert_close(streamed(module, x, cuts, mask)[mask], whole(module, x, mask)[mask])


def test_a_state_is_a_value_whose_rows_can_be_chosen() -> None:
    module, x = layer("causal"), torch.randn(3, 14, DIM)
    state = module(x[:, :6], Call(Places.run(0, 6))).state
    rows = torch.tensor([2, 0])
    later = Call(Places.run(6, 8))
    module(x[:, 6:], later, state)
    chosen = module(x[rows, 6:], Call(Places.run(6, 8)), select(state, rows)).y
    torch.testing.assert_close(chosen, whole(module, x)[rows, 6:])


# Learning and chance


@pytest.mark.parametrize("form", list(FORMS))
def test_gradients_are_those_of_finite_differences(form: str) -> None:
    spec, site = FORMS[form]
    module = spec.replace(heads=2, block=2, iterations=2).build(Site(dim=4, causal=site.causal))
    mask = torch.tensor([[True] * 7, [False] * 2 + [True] * 5])
    x = torch.randn(2, 7, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: whole(module, x, mask)[mask], (x,))


@pytest.mark.parametrize("form", list(FORMS))
def test_every_parameter_learns(form: str) -> None:
    module = layer(form)
    whole(module, torch.randn(2, 30, DIM)).square().sum().backward()
    asleep = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert asleep == []


@pytest.mark.parametrize("form", list(FORMS))
def test_chance_is_the_seeds_and_only_in_training(form: str) -> None:
    module, x = layer(form), torch.randn(2, 30, DIM)
    torch.testing.assert_close(whole(module, x, seed=1), whole(module, x, seed=2), rtol=0, atol=0)
    module.train()
    torch.testing.assert_close(whole(module, x, seed=1), whole(module, x, seed=1), rtol=0, atol=0)
    assert not torch.equal(whole(module, x, seed=1), whole(module, x, seed=2))
    quiet = layer(form, noise=0.0).train()
    torch.testing.assert_close(whole(quiet, x, seed=1), whole(quiet, x, seed=2), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "site", "said"),
    [
        ({"block": 0}, CAUSAL, "a block must hold"),
        ({"iterations": 0}, CAUSAL, "without an iteration"),
        ({"temperature": 0.0}, CAUSAL, "must be positive"),
        ({"temperature": float("nan")}, CAUSAL, "must be positive"),
        ({"noise": -1.0}, CAUSAL, "must not be negative"),
        ({"cut": 0}, TWO_SIDED, "leaves no sorted block"),
        ({"cut": 2}, CAUSAL, "must not see the future"),
        ({"heads": 5}, CAUSAL, "does not split"),
        ({"dropout": 1.5}, CAUSAL, "dropout"),
        ({}, TWO_SIDED.replace(streaming=True), "cannot be continued"),
    ],
)
def test_bad_input_is_refused_with_a_mend(changes: dict, site: Site, said: str) -> None:
    problems = list(SinkhornAttention(3, block=4).replace(**changes).problems(site))
    assert len(problems) == 1
    assert said in problems[0][0] and problems[0][1]


def test_good_input_is_not_refused() -> None:
    assert [list(spec.problems(site)) for spec, site in FORMS.values()] == [[], [], []]
    assert list(SinkhornAttention(3).problems(CAUSAL.replace(streaming=True))) == []
