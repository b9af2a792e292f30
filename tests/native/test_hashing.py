"""The nearest axes, told natively, are those that argmax tells; sorted natively, tokens stand as PyTorch puts them."""

import pytest
import torch

from formers import native
from formers.attention.buckets import BEHIND
from formers.attention.sorted.plan import Rules, sort_by


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (2, 3, 5, 2, 4), (1, 2, 5000, 3, 8), (1, 2, 37, 2, 37)], ids=str)
def test_equals_argmax_over_the_axes_and_their_opposites(shape: tuple[int, ...], kernel: str) -> None:
    torch.manual_seed(0)
    turned = torch.randn(shape).round(decimals=1)  # so that there are ties
    room = torch.ones(shape[0], shape[1], shape[3], shape[2] + 7, dtype=torch.int32)
    native.add_nearest(turned, room[..., 4:-3], 10, kernel)
    expected = torch.cat([turned, -turned], -1).argmax(-1).mT
    assert torch.equal(room[..., 4:-3], (1 + 10 * expected).int())
    assert bool((room[..., :4] == 1).all()) and bool((room[..., -3:] == 1).all())


@pytest.mark.parametrize("buckets", [1, 3, 5000, 1 << 30], ids=str)
@pytest.mark.parametrize("length", [0, 1, 7, 3000])
def test_order_is_that_of_a_stable_sort(buckets: int, length: int, built: None) -> None:
    torch.manual_seed(0)
    bucket = torch.randint(buckets, (2, 3, 2, length), dtype=torch.int32)
    bucket[1, ..., length // 2 :] = BEHIND
    order, slot = native.in_order(bucket)
    assert torch.equal(order.long(), bucket.argsort(stable=True, dim=-1))
    assert torch.equal(slot.long(), order.long().argsort(-1))


def test_plans_are_the_same_without_it(monkeypatch: pytest.MonkeyPatch, built: None) -> None:
    bucket = torch.randint(9, (2, 1, 3, 100), dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    mine = sort_by(bucket, Rules(8))
    monkeypatch.setattr(native, "refuses_order", lambda bucket: "not today")
    theirs = sort_by(bucket, Rules(8))
    for name in ("order", "slot", "bucket"):
        assert torch.equal(getattr(mine, name), getattr(theirs, name))


def test_what_it_cannot_do_is_told() -> None:
    assert "float64" in str(native.refuses_hashing(torch.zeros(1, 1, 1, 1, 2, dtype=torch.float64)))
    assert "int64" in str(native.refuses_order(torch.zeros(1, 1, 1, 2, dtype=torch.int64)))
