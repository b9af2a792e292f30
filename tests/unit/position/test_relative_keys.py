"""Relative positions of keys: the formula, and how much of the table is read."""

import pytest
import torch

from formers import RelativeKeys
from formers.places import Places, keys, queries
from formers.spec import Site


@pytest.mark.parametrize("causal", [True, False])
def test_scores_are_the_formula(causal: bool) -> None:
    torch.manual_seed(0)
    layer = RelativeKeys(4).build(Site(12, causal=causal, heads=2, head_dim=6))
    assert layer.table.weight.shape == ((4 if causal else 7), 6)
    q, k = torch.randn(2, 2, 3, 6), torch.randn(2, 2, 9, 6)
    at, to = Places.run(6, 3), Places.run(0, 9)
    found = layer.scores(q, k, queries(at), keys(to), torch.arange(2)[:, None, None])
    for i in range(3):
        for j in range(9):
            behind = 6 + i - j
            row = min(max(behind, 0), 3) if causal else min(max(behind, -3), 3) + 3
            expected = (q[:, :, i] * (k[:, :, j] + layer.table.weight[row])).sum(-1)
            torch.testing.assert_close(found[:, :, i, j], expected)


def test_only_distances_that_occur_are_read() -> None:
    layer = RelativeKeys(1000).build(Site(12, causal=True, heads=2, head_dim=6))
    at, to = Places.run(500, 2), Places.run(490, 12)
    layer.scores(torch.randn(1, 2, 2, 6), torch.randn(1, 2, 12, 6), queries(at), keys(to), None).sum().backward()
    read = layer.table.weight.grad.any(1).nonzero()[:, 0]
    assert read.tolist() == list(range(12))
