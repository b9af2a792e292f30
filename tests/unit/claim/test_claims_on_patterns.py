"""The claims on members whose pattern is fixed by position, at their smallest."""

import io

import pytest
from rich.console import Console

from formers import claim
from formers.claim.cases.longformer import attentions, share_met
from formers.claim.marker_task import Finder


def run(name: str) -> list:
    return claim.run(name, console=Console(file=io.StringIO(), width=160), quick=True)


def test_longformer_is_held_against_windows_and_full_attention() -> None:
    *kinds, met = run("longformer")
    assert [row.name for row in kinds] == list(attentions())
    assert [str(row.goal) for row in kinds] == ["value <= 0.15", "value >= 0.95", "value >= 0.95"]
    assert all(0 <= row.value <= 1 and row.rival_value == pytest.approx(1 / 3) for row in kinds)
    assert met.goal is None


def test_longformer_counts_the_pairs_that_meet() -> None:
    assert share_met(Finder().task) == pytest.approx((128 * 9 - 20 + 2 * 123) / 128**2)  # 9 each, but for both ends
