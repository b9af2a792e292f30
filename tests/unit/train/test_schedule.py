import math

import pytest

from formers.errors import ConfigError
from formers.train import Constant, CosineDecay, InverseSquareRoot, TrainSpec, vanilla_peak


def test_the_vanilla_schedule_is_the_papers_formula():
    dim, warm_up = 512, 4000
    schedule, peak = InverseSquareRoot(warm_up), vanilla_peak(dim, warm_up)
    for step in (1, 2, 3999, 4000, 4001, 100_000):
        paper = dim**-0.5 * min(step**-0.5, step * warm_up**-1.5)
        assert peak * schedule.factor(step, 100_000) == pytest.approx(paper, rel=1e-12)


def test_a_cosine_rises_linearly_and_falls_to_its_floor_at_the_last_step():
    schedule = CosineDecay(warm_up=10, floor=0.2)
    assert [schedule.factor(step, 110) for step in (1, 5, 10)] == pytest.approx([0.1, 0.5, 1.0])
    assert schedule.factor(60, 110) == pytest.approx(0.6)
    assert schedule.factor(110, 110) == pytest.approx(0.2)
    falling = [schedule.factor(step, 110) for step in range(10, 111)]
    assert falling == sorted(falling, reverse=True)


def test_a_cosine_whose_warm_up_is_longer_than_the_run_only_rises():
    assert [CosineDecay(warm_up=100).factor(step, 4) for step in (1, 4)] == [0.01, 0.04]


def test_a_constant_rate_may_have_a_warm_up_or_none():
    assert [Constant().factor(step, 9) for step in (1, 9)] == [1.0, 1.0]
    assert [Constant(4).factor(step, 9) for step in (1, 2, 4, 9)] == [0.25, 0.5, 1.0, 1.0]


@pytest.mark.parametrize("schedule", [Constant(-1), CosineDecay(-1), CosineDecay(floor=1.5), InverseSquareRoot(0)])
def test_a_schedule_that_makes_no_sense_is_refused(schedule):
    with pytest.raises(ConfigError, match=r"train\.schedule: "):
        TrainSpec(steps=10, schedule=schedule).check()


def test_no_rate_is_ever_negative_or_infinite():
    for schedule in (Constant(3), CosineDecay(3), InverseSquareRoot(3)):
        factors = [schedule.factor(step, 20) for step in range(1, 25)]
        assert all(0 < factor <= 1 and math.isfinite(factor) for factor in factors)
