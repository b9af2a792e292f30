"""The nearest axes, told natively, are those that argmax tells."""

import pytest
import torch

from formers import native


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (2, 3, 5, 2, 4), (1, 2, 5000, 3, 8)], ids=str)
def test_equals_argmax_over_the_axes_and_their_opposites(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    turned = torch.randn(shape).round(decimals=1)  # so that there are ties
    if native.refuses_hashing(turned):
        pytest.skip(native.refuses_hashing(turned))
    room = torch.ones(shape[0], shape[1], shape[3], shape[2] + 7, dtype=torch.int32)
    native.add_nearest(turned, room[..., 4:-3], 10)
    expected = torch.cat([turned, -turned], -1).argmax(-1).mT
    assert torch.equal(room[..., 4:-3], (1 + 10 * expected).int())
    assert bool((room[..., :4] == 1).all()) and bool((room[..., -3:] == 1).all())


def test_what_it_cannot_do_is_told() -> None:
    assert "float64" in str(native.refuses_hashing(torch.zeros(1, 1, 1, 1, 2, dtype=torch.float64)))
