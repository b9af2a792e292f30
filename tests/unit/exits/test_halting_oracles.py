"""Oracles against sums written out one token at a time."""

import math

import pytest
import torch

from formers.exits.halting.oracles import (
    CorrectnessOracle,
    ExitOracle,
    Judged,
    LikelihoodOracle,
    lowest_of_best,
    smoothed,
)
from formers.spec import Site

EXITS = 4


def judged(length: int = 9, *, left: int = 2, right: int = 3) -> Judged:
    """Three rows: all real, padded on the left, padded on the right; what stands in padding is absurdly good."""
    real = torch.ones(3, length, dtype=torch.bool)
    real[1, :left] = False
    real[2, length - right :] = False
    likelihood = torch.randn(3, length, EXITS, dtype=torch.float64).sub(2)
    hit = torch.rand(3, length, EXITS) < 0.5
    pos = (real.cumsum(1) - 1).clamp(min=0)
    return Judged(torch.where(real[..., None], likelihood, 1e6), hit | ~real[..., None], pos, real)


def by_hand(oracle: ExitOracle, what: Judged) -> list[list[int]]:
    """The best exit of each token; 0 at padding."""
    merit = oracle.merit(what)
    found = []
    for row in range(3):
        places = [t for t in range(merit.shape[1]) if what.real[row, t]]
        best = [0] * merit.shape[1]
        for number, t in enumerate(places):
            totals = []
            for n in range(EXITS):
                near = [(abs(number - other), merit[row, s, n].item()) for other, s in enumerate(places)]
                kept = [m * math.exp(-d * d / oracle.spread) for d, m in near] if oracle.spread else [near[number][1]]
                totals.append(sum(kept) - oracle.price * (n + 1))
            best[t] = 1 + max(range(EXITS), key=lambda n: (round(totals[n], 9), -n))
        found.append(best)
    return found


@pytest.mark.parametrize("kind", [LikelihoodOracle, CorrectnessOracle])
@pytest.mark.parametrize("price", [0.0, 0.02, 0.7])
@pytest.mark.parametrize("spread", [0.0, 5.0, 30.0])
def test_the_best_exit_of_each_token(kind: type[ExitOracle], price: float, spread: float) -> None:
    oracle, what = kind(price, spread), judged()
    found = torch.where(what.real, oracle.of_tokens(what), 0)
    assert found.tolist() == by_hand(oracle, what)


def test_nearer_tokens_count_for_more() -> None:
    """The sign of the exponent: with the other one the farthest token would decide."""
    merit = torch.zeros(1, 7, 2, dtype=torch.float64)
    merit[0, 0, 0], merit[0, 6, 1] = 1.0, 1.0
    weights = smoothed(merit, torch.arange(7)[None], 5.0)
    torch.testing.assert_close(weights[0, 2], torch.tensor([math.exp(-4 / 5), math.exp(-16 / 5)], dtype=torch.float64))
    assert weights[0, :, 0].diff().max() < 0 < weights[0, :, 1].diff().min()


@pytest.mark.parametrize("kind", [LikelihoodOracle, CorrectnessOracle])
@pytest.mark.parametrize("price", [0.0, 0.4])
def test_the_best_exit_of_a_row_is_that_of_its_sum(kind: type[ExitOracle], price: float) -> None:
    oracle, what = kind(price), judged()
    totals = torch.stack([oracle.merit(what)[row][what.real[row]].sum(0) for row in range(3)])
    wanted = [max(range(EXITS), key=lambda n: (round((row[n] - price * (n + 1)).item(), 9), -n)) + 1 for row in totals]
    assert oracle.of_rows(what).tolist() == wanted


def test_of_equals_the_lowest_even_if_they_were_summed_in_another_order() -> None:
    scores = torch.tensor([[0.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0], [0.1 + 0.2, 0.3, 0.0, 0.3]], dtype=torch.float64)
    assert lowest_of_best(scores).tolist() == [2, 1, 1]
    assert lowest_of_best(scores[2:].flip(-1)).tolist() == [1]
    assert lowest_of_best(torch.tensor([0.3, 0.3001])).item() == 2


def test_a_price_sends_a_token_to_the_first_exit_that_is_right() -> None:
    right = torch.tensor([[[0, 0, 1, 1], [0, 0, 0, 0], [1, 0, 1, 1]]], dtype=torch.bool)
    real = torch.ones(1, 3, dtype=torch.bool)
    what = Judged(torch.zeros(1, 3, EXITS), right, torch.arange(3)[None], real)
    assert CorrectnessOracle(0.02).of_tokens(what).tolist() == [[3, 1, 1]]
    assert CorrectnessOracle(0.6).of_tokens(what).tolist() == [[1, 1, 1]]


def test_what_makes_no_oracle_is_told() -> None:
    site = Site(dim=8)
    assert "for its own sake" in next(iter(CorrectnessOracle(-0.1).problems(site)))[0]
    assert "would grow" in next(iter(LikelihoodOracle(spread=-1.0).problems(site)))[0]
