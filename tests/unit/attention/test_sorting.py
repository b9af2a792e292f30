"""The sorting rules of Sinkhorn attention by themselves."""

from itertools import permutations

import pytest
import torch
from torch import Tensor

from formers.attention.sorting import RunningLogSum, earlier_noise, pair_noise, sinkhorn, sinkhorn_causal

pytestmark = pytest.mark.usefixtures("float64")


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
