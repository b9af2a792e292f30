"""Positions that join the embedding: their formulas, random starts in training, and none in evaluation."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from formers import ConfigError, FixedBase, FormersError, Infinite, LearnedLowRank, LearnedSinusoidal, TimeBin
from formers.call import Call
from formers.places import Places
from formers.position import AbsolutePosition, sinusoid
from formers.position.infinite import walks
from formers.spec import Site
from formers.spec.check import check

DIM = 16
KINDS: dict[str, AbsolutePosition] = {
    "learned": LearnedSinusoidal(40, offset=30),
    "low rank": LearnedLowRank(40, rank=3),
    "fixed base": FixedBase(from_zero=0.0, dropped=0.0),
    "infinite": Infinite(affine=True),
    "infinite diag": Infinite(transform="diag", affine=True),
    "time bin": TimeBin(5),
}
RANDOM = ["learned", "fixed base", "infinite", "infinite diag"]


def build(position: AbsolutePosition) -> Any:
    torch.manual_seed(0)
    layer = position.build(Site(DIM)).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += torch.randn_like(parameter)
    return layer


def read(layer: Any, length: int = 9, rows: int = 4, seed: int = 0, start: int = 0) -> Tensor:
    """What the layer makes of token vectors that are 0."""
    return layer(torch.zeros(rows, length, DIM, dtype=torch.float64), Call(Places.run(start, length), seed=seed))


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_is_the_same_in_every_call_and_row_and_goes_on_where_it_was(kind: str) -> None:
    layer = build(KINDS[kind]).eval()
    whole = read(layer)
    torch.testing.assert_close(read(layer, seed=7), whole, rtol=0, atol=0)
    torch.testing.assert_close(whole, whole[:1].expand_as(whole), rtol=0, atol=0)
    torch.testing.assert_close(read(layer, 4, start=5), whole[:, 5:])
    assert len(torch.unique(whole[0], dim=0)) == 9


@pytest.mark.parametrize("kind", KINDS)
def test_padding_takes_up_no_position(kind: str) -> None:
    layer, real = build(KINDS[kind]).eval(), torch.tensor([[False, True, False, True, True]])
    x = torch.zeros(1, 5, DIM, dtype=torch.float64)
    y = layer(x, Call(Places((real.cumsum(1) - 1).clamp(min=0), real)))
    torch.testing.assert_close(y[0][real[0]], read(layer, 3)[0])


@pytest.mark.parametrize("kind", RANDOM)
def test_training_draws_by_the_seed_of_the_call(kind: str) -> None:
    layer = build(KINDS[kind]).train()
    first = read(layer, seed=1)
    torch.testing.assert_close(read(layer, seed=1), first, rtol=0, atol=0)
    assert not torch.equal(read(layer, seed=2), first)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    read(layer, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(RANDOM)))
def test_other_kinds_draw_nothing(kind: str) -> None:
    layer = build(KINDS[kind])
    torch.testing.assert_close(read(layer.train(), seed=1), read(layer.eval(), seed=2), rtol=0, atol=0)


def test_a_learned_table_begins_as_sinusoids_and_training_reads_it_from_anywhere() -> None:
    layer: Any = KINDS["learned"].build(Site(DIM))
    torch.testing.assert_close(layer.table.data, sinusoid(torch.arange(40), DIM, "interleaved", torch.float32))
    layer = build(KINDS["learned"]).train()
    rows = read(layer, 9, rows=400)
    starts = (rows[:, None, 0] == layer.table[None, :, :]).all(-1).nonzero()[:, 1]
    assert len(starts) == 400
    assert set(starts.tolist()) == set(range(31))
    crowded = read(layer, 38, rows=50)
    starts = (crowded[:, None, 0] == layer.table[None, :, :]).all(-1).nonzero()[:, 1]
    assert set(starts.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("kind", ["learned", "low rank"])
def test_tables_end_with_an_error_that_says_where(kind: str) -> None:
    for layer in (build(KINDS[kind]).eval(), build(KINDS[kind]).train()):
        with pytest.raises(FormersError, match="this model has 40 positions"):
            read(layer, 41)


def test_a_low_rank_table_is_the_product_of_two() -> None:
    layer = build(KINDS["low rank"])
    wanted = layer.table.weight[:9] @ layer.up.weight.T
    torch.testing.assert_close(read(layer)[0], wanted)


def by_digits(layer: Any, position: int) -> Tensor:
    """The digits of a position, one by one."""
    total = torch.zeros(DIM, dtype=torch.float64)
    for base, scales in zip(layer.spec.bases, layer.scales, strict=True):
        rest, parts = position, []
        for scale in scales:
            parts.append(rest % base * scale)
            rest //= base
        total = total + torch.cat(parts)
    return total


def test_fixed_base_writes_digits() -> None:
    layer = build(FixedBase()).eval()
    for position in (0, 1, 10, 11, 14, 15, 12_345, 11**8 - 1):
        y = read(layer, 1, 1, start=position)[0, 0]
        torch.testing.assert_close(y, by_digits(layer, position) + layer.start * (position == 0))


def test_fixed_base_in_training_begins_anywhere_and_marks_the_first_token() -> None:
    layer = build(FixedBase(bases=(2, 3), digits=4, from_zero=0.5, dropped=0.25)).train()
    rows = read(layer, 3, rows=4000)
    table = torch.stack([by_digits(layer, p) for p in range(16)])
    whole = torch.stack([table[p : p + 3] for p in range(14)])
    plain = torch.cat([rows[:, :1] - layer.start, rows[:, 1:]], 1)
    known = torch.cat([whole, torch.zeros(1, 3, DIM, dtype=torch.float64)])
    distance = (plain[:, None] - known).abs().amax((2, 3))
    assert distance.amin(1).max() < 1e-9
    share = torch.bincount(distance.argmin(1), minlength=15) / 4000
    assert share[14] == pytest.approx(0.25, abs=0.03)
    assert share[0] == pytest.approx(0.75 * (0.5 + 0.5 / 13), abs=0.03)
    assert share[1:13].min() > 0.01 and share[13] == 0  # the last start leaves room for three tokens


def test_a_time_bin_replaces_three_channels() -> None:
    layer, x = build(TimeBin(5)), torch.randn(2, 12, DIM, dtype=torch.float64)
    y = layer(x, Call(Places.run(0, 12)))
    torch.testing.assert_close(y[..., :-3], x[..., :-3], rtol=0, atol=0)
    told = [[1 / (1 + p // 5), p % 5 / 5, p // 5 % 2] for p in range(12)]
    torch.testing.assert_close(y[1, :, -3:], torch.tensor(told, dtype=torch.float64))


def test_infinite_positions_are_waves_with_walking_phases() -> None:
    layer: Any = Infinite(drift=0.1, transform="none").build(Site(6))
    y = layer(torch.zeros(1, 5, 6, dtype=torch.float64), Call(Places.run(100, 5)))[0]
    phases = walks(np.arange(100, 105), 3) * math.sqrt(0.1) / 4
    for t in range(5):
        for pair in range(3):
            cycles = (100 + t) * 0.5 * 0.1**pair + phases[t, pair]
            assert y[t, 2 * pair].item() == pytest.approx(math.cos(2 * math.pi * cycles), abs=1e-9)
            assert y[t, 2 * pair + 1].item() == pytest.approx(-math.sin(2 * math.pi * cycles), abs=1e-9)


def test_walks_can_be_entered_anywhere_and_are_walks() -> None:
    whole = walks(np.arange(9000), 40)
    np.testing.assert_allclose(walks(np.array([8191, 17, 4096]), 40), whole[[8191, 17, 4096]], atol=1e-9)
    steps = np.diff(whole, axis=0)
    assert np.abs(whole[0]).max() < 1e-9
    assert steps.mean() == pytest.approx(0, abs=0.01) and steps.var() == pytest.approx(1, abs=0.02)
    assert np.mean(steps[1:] * steps[:-1]) == pytest.approx(0, abs=0.02)
    assert (whole[8192] - whole[4096]).var() == pytest.approx(4096, rel=0.6)  # of 40 walks


def test_walks_go_on_far_away() -> None:
    far = 123_456_789
    steps = np.diff(walks(np.arange(far, far + 5000), 20), axis=0)
    assert steps.var() == pytest.approx(1, abs=0.03)


REFUSED = [
    (LearnedSinusoidal(40, offset=40), DIM, "no start lies 40 positions into a table of 40"),
    (LearnedSinusoidal(40), 15, "sines and cosines come in pairs"),
    (LearnedLowRank(40, rank=0), DIM, "a table of rank 0"),
    (FixedBase(), 20, r"8 digits do not share a width of 20 evenly(?s:.*)dim=16"),
    (FixedBase(bases=(1, 3)), DIM, "do not write positions"),
    (FixedBase(bases=()), DIM, "do not write positions"),
    (FixedBase(from_zero=2.0), DIM, "2.0 is no share of rows"),
    (TimeBin(0), DIM, "a bin of 0 positions"),
    (TimeBin(), 3, "three channels of 3"),
    (Infinite(drift=1.0), DIM, "a drift lies between 0 and 1"),
    (Infinite(), 5, "come in pairs"),
]


@pytest.mark.parametrize(("position", "dim", "told"), REFUSED, ids=repr)
def test_what_cannot_be_is_refused(position: AbsolutePosition, dim: int, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check(position, Site(dim), "position")
