"""The lowest threshold of which a promise can be shown: Learn-then-Test, arXiv:2110.01052, as CALM uses it."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from formers import ConfigError, DataError, make
from formers.exits.calibration import (
    Found,
    Promise,
    Writings,
    at_threshold,
    p_value,
    unlike,
    walk_down,
    with_threshold,
)

PROMISE = Promise(risk=0.1, confidence=0.9)


@pytest.mark.parametrize(("heads", "count", "risk"), [(0, 30, 0.1), (1, 80, 0.1), (3, 100, 0.1), (12, 400, 0.05)])
def test_the_p_value_is_no_smaller_than_that_of_coins_and_not_much_larger(heads: int, count: int, risk: float) -> None:
    exact = sum(math.comb(count, k) * risk**k * (1 - risk) ** (count - k) for k in range(heads + 1))
    found = p_value(heads / count, count, risk)
    assert exact * (1 - 1e-9) <= found <= math.e * exact * (1 + 1e-9)


def test_a_risk_that_is_not_below_the_promised_one_is_never_shown() -> None:
    assert p_value(0.1, 1000, 0.1) == p_value(0.3, 1000, 0.1) == 1


def test_the_fewest_texts_that_can_show_it() -> None:
    promise = Promise(risk=0.02, confidence=0.95)
    assert promise.needed == 149
    assert p_value(0.0, 149, 0.02) <= 0.05 < p_value(0.0, 148, 0.02)
    with pytest.raises(DataError, match=r"148 texts cannot show .* give 149 or more"):
        promise.require(148)


def test_it_stops_at_the_first_failure_although_a_later_threshold_would_pass() -> None:
    asked: list[float] = []

    def find(threshold: float) -> Found:
        asked.append(threshold)
        return Found([0.0] * 50 if threshold != 0.6 else [1.0] * 50, 4 * threshold)

    found = walk_down(find, [1.0, 0.8, 0.6, 0.4], PROMISE)
    assert asked == [1.0, 0.8, 0.6]
    assert found.threshold == 0.8
    assert found.chosen is not None
    assert found.chosen.mean_exit == 3.2


def test_where_the_highest_fails_there_is_none() -> None:
    assert walk_down(lambda threshold: Found([1.0] * 50, 1.0), [0.9, 0.5], PROMISE).threshold is None


def test_risk_and_confidence_are_not_each_other() -> None:
    """A loss of 0.05 in 300 texts is surely below 0.1, and not below 0.01."""

    def find(threshold: float) -> Found:
        return Found([1.0] * 15 + [0.0] * 285, 1.0)

    assert walk_down(find, [0.5], Promise(risk=0.1, confidence=0.99)).threshold == 0.5
    assert walk_down(find, [0.5], Promise(risk=0.02, confidence=0.9)).threshold is None


def test_thresholds_that_rise_and_shares_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="from the highest down"):
        walk_down(lambda threshold: Found([0.0] * 50, 1.0), [0.5, 0.6], PROMISE)
    with pytest.raises(ConfigError, match="a risk lies between 0 and 1"):
        Promise(risk=2, confidence=0.9)


def test_the_promise_is_kept_over_many_calibrations() -> None:
    """Losses are coins that show heads with the chance 0.3 (1 - threshold): of 300 calibrations a tenth at most chooses a
    threshold whose true risk is above the promised 0.1, which is one below 2 / 3."""
    generator = torch.Generator().manual_seed(0)
    thresholds = [1 - 0.05 * step for step in range(20)]
    broken = chose = 0
    for _ in range(300):
        drawn = torch.rand(200, generator=generator)
        found = walk_down(lambda t, u=drawn: Found((u < 0.3 * (1 - t)).double().tolist(), 1.0), thresholds, PROMISE)
        broken += found.threshold is not None and 0.3 * (1 - found.threshold) > PROMISE.risk + 1e-9
        chose += found.threshold is not None and found.threshold < 0.92
    assert broken <= 30
    assert chose >= 290


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [([], [], 0), ([1, 2, 3], [1, 2, 3], 0), ([1, 2], [3, 4], 1), ([1, 2, 3, 4], [2, 4], 1 - 2 * 2 / 6)],
)
def test_how_unlike_two_texts_are(one: list[int], other: list[int], expected: float) -> None:
    assert unlike(one, other) == pytest.approx(expected)


def awake(name: str, **fields: Any) -> nn.Module:
    torch.manual_seed(0)
    model = make(name, vocab=23, dim=16, depth=4, heads=2, hidden=24, **fields).build().eval()
    for parameter in model.stack.parameters():
        nn.init.normal_(parameter, std=0.5)
    nn.init.normal_(model.embedding.tokens.weight, std=0.8)
    return model


def test_a_model_with_another_threshold_has_the_same_parameters_and_leaves_the_old_one_alone() -> None:
    model = awake("calm", threshold=0.3)
    other = with_threshold(model, 0.05)
    assert {id(part) for part in model.parameters()} == {id(part) for part in other.parameters()}
    assert (
        other.spec
        == at_threshold(model.spec, 0.05)
        == make("calm", vocab=23, dim=16, depth=4, heads=2, hidden=24, threshold=0.05)
    )
    tokens = torch.randint(23, (2, 12))
    leaves = [m(tokens).records["leaves"][0].double().mean() for m in (with_threshold(model, None), model, other)]
    assert leaves[0] == 4 > leaves[1] > leaves[2]
    with pytest.raises(ConfigError, match="no exits that a threshold"):
        with_threshold(make("gpt2", vocab=23, dim=16, depth=1, heads=2).build(), 0.5)


def test_losses_of_whole_texts_are_those_of_what_is_written() -> None:
    """The single pass that finds the texts which differ, against writing all of them."""
    from formers.decode import Sampling, generate

    model = awake("calm")
    prompts = torch.randint(23, (12, 5), generator=torch.Generator().manual_seed(1)).tolist()
    writings = Writings(model, prompts, 8, engine="torch")
    how: dict[str, Any] = {"max_new": 8, "sampling": Sampling(temperature=0.0), "engine": "torch"}
    for threshold in (0.9, 0.4, 0.1):
        early = with_threshold(model, threshold)
        rows = [row.tokens for row in generate(early, prompts, **how)]
        found = writings.at(threshold)
        assert found.texts == rows
        assert found.losses == [unlike(row, full) for row, full in zip(rows, writings.full, strict=True)]
        seen = early(torch.tensor([p + row for p, row in zip(prompts, rows, strict=True)])).records["leaves"][0]
        assert found.mean_exit == pytest.approx(float(seen[:, 4:-1].double().mean()))
    assert any(writings.at(0.1).losses)
    truth = [row[:4] for row in writings.full]
    references = Writings(model, prompts, 8, references=truth, engine="torch")
    assert all(0 <= loss <= 1 for loss in references.at(0.1).losses)
    assert references.at(1.0).losses == [0.0] * 12


def test_an_encoder_decoder_is_calibrated_on_its_sources() -> None:
    from formers.data.tokenizer import ByteTokenizer

    model = make("calm_encoder_decoder", vocab=258, dim=16, depth=2, heads=2, head_dim=8, hidden=24).build().eval()
    tokenizer = ByteTokenizer()
    writings = Writings(model, [[1, 2, 3], [4, 5]], 5, tokenizer=tokenizer, engine="torch")
    found = writings.at(1.0)
    assert found.losses == [0.0, 0.0]
    assert found.mean_exit == 2
    assert writings.at(0.0).mean_exit == 1
