"""Thresholds by search against every choice of thresholds there is."""

from itertools import product

import pytest
import torch

from formers.exits.halting.search import leaves, search


def worth(confidence: torch.Tensor, right: torch.Tensor, thresholds: tuple[float, ...], price: float) -> float:
    """Token by token."""
    total = 0.0
    for sure, good in zip(confidence.tolist(), right.tolist(), strict=True):
        exit_ = next((n for n, (c, t) in enumerate(zip(sure, thresholds, strict=True)) if c >= t), len(sure))
        total += good[exit_] - price * (exit_ + 1)
    return total / len(confidence)


@pytest.mark.parametrize("price", [0.0, 0.05, 0.3, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_found_is_as_good_as_it_can_be_where_confidence_tells(price: float, seed: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    right = torch.rand(30, 3, generator=drawn) < torch.tensor([0.4, 0.7, 0.9])
    confidence = right[:, :2] * 0.6 + 0.5 * torch.rand(30, 2, generator=drawn)
    found = search(confidence, right, price)
    levels = [[*column.tolist(), float("inf")] for column in confidence.T]
    best = max(worth(confidence, right, thresholds, price) for thresholds in product(*levels))
    assert found.accuracy - price * found.exit == pytest.approx(worth(confidence, right, found.thresholds, price))
    assert found.accuracy - price * found.exit >= best - 0.01


def test_nobody_leaves_early_where_only_the_end_is_right() -> None:
    right = torch.tensor([[False, False, True]]).expand(20, -1)
    found = search(torch.rand(20, 2), right, 0.1)
    assert (found.exit, found.accuracy) == (3.0, 1.0)
    assert leaves(torch.rand(50, 2), torch.tensor(found.thresholds)).unique().tolist() == [3]


def test_all_leave_at_once_where_blocks_cost_more_than_they_give() -> None:
    found = search(torch.rand(20, 2), torch.rand(20, 3) < 0.5, 5.0)
    assert found.exit == 1.0


def test_exits_that_tell_by_other_numbers_get_other_thresholds() -> None:
    """What is sure at the first exit is not at the second: one threshold for both cannot do it."""
    right = torch.rand(400, 3) < torch.tensor([0.5, 0.5, 1.0])
    confidence = torch.stack([0.1 + 0.1 * right[:, 0], 0.8 + 0.1 * right[:, 1]], 1)
    found = search(confidence, right, 0.01)
    assert found.accuracy == 1.0
    assert found.thresholds[0] == pytest.approx(0.2)
    assert found.thresholds[1] == pytest.approx(0.9)


def test_tables_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \(0, 2\) and \(0, 3\)"):
        search(torch.rand(0, 2), torch.rand(0, 3) < 1, 0.1)
    with pytest.raises(ValueError, match=r"got \(4, 2\) and \(4, 2\)"):
        search(torch.rand(4, 2), torch.rand(4, 2) < 1, 0.1)
