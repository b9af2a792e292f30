"""Choices that the native kernels make, and their chances, are those that PyTorch makes of the same random numbers."""

import pytest
import torch
from torch import Tensor

from formers import FormersError
from formers.native import draws
from formers.sparse import choosing

REASON = draws.refuses_draws(torch.empty(1, 2))
SIZES = [2, 3, 16, 50, 64, 256, 1000]
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def some(size: int) -> Tensor:
    return 2 * torch.randn(300, 4, size, generator=torch.Generator().manual_seed(size))


@pytest.mark.parametrize("size", SIZES)
def test_the_largest_is_found(size: int, kernel: str) -> None:
    logits = some(size)
    logits[0] = 1.0  # of equals it is the first
    found = draws.draw(logits, kernel=kernel)
    assert torch.equal(found[1:], logits[1:].argmax(-1).int()) and not found[0].any()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_draws_are_those_of_running_sums(
    size: int, temperature: float, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, shares = some(size), torch.rand(300, 4, generator=torch.Generator().manual_seed(7))
    found = draws.draw(logits, shares, temperature, kernel=kernel)
    sums = (logits.double() / temperature).softmax(-1).cumsum(-1)
    below = torch.where(found > 0, sums.gather(-1, (found.long() - 1).clamp(min=0)[..., None])[..., 0], 0)
    above = sums.gather(-1, found.long()[..., None])[..., 0]
    assert ((below <= shares + 1e-5) & (shares < above + 1e-5)).all()
    by_torch = torch.searchsorted(sums, shares.double()[..., None], right=True)[..., 0]
    assert (found != by_torch).sum() <= 2  # where a share falls between two roundings


def test_the_ends_of_the_shares_are_choices_too(kernel: str) -> None:
    logits = torch.tensor([[-1e30, 0.0, 0.0, -1e30, -1e30]])
    for share, expected in ((0.0, 1), (0.49, 1), (0.51, 2), (1 - 2**-24, 2), (1.0, 1)):
        assert draws.draw(logits, torch.tensor([share]), kernel=kernel).item() == expected
    for odd in (float("nan"), float("inf"), -float("inf")):
        assert 0 <= draws.draw(torch.full((1, 5), odd), torch.tensor([0.5]), kernel=kernel).item() < 5


@pytest.mark.parametrize("size", SIZES)
def test_chances_and_their_slopes_are_the_softmax(size: int, kernel: str) -> None:
    logits = some(size).requires_grad_()
    picked = torch.randint(size, (300, 4))
    upstream = torch.randn(300, 4).relu()
    expected = logits.softmax(-1).gather(-1, picked[..., None])[..., 0]
    (wanted,) = torch.autograd.grad(expected, logits, upstream)
    found = draws.weigh(logits.detach(), picked, kernel=kernel)
    torch.testing.assert_close(found[0], expected.detach(), atol=1e-6, rtol=1e-5)
    slopes = draws.slope(upstream, logits.detach(), picked, *found, kernel=kernel)
    torch.testing.assert_close(slopes, wanted, atol=1e-6, rtol=1e-5)


def test_pytorch_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = some(64)
    natively = choosing.sample(logits, 0.3, torch.Generator().manual_seed(1)), choosing.best(logits)
    monkeypatch.setattr(draws, "refuses_draws", lambda logits: "not here")
    without = choosing.sample(logits, 0.3, torch.Generator().manual_seed(1)), choosing.best(logits)
    assert natively[0].dtype == without[0].dtype == torch.uint8
    assert torch.equal(natively[1], without[1]) and (natively[0] != without[0]).sum() <= 2


def test_what_cannot_be_chosen_is_refused_in_words() -> None:
    assert "up to 1024, not 1025" in str(draws.refuses_draws(torch.empty(1, 1025)))
    assert "not float64" in str(draws.refuses_draws(torch.empty(1, 4, dtype=torch.float64)))
    with pytest.raises(FormersError, match="choices lie from 0 to 3 in blocks of 4, not from 4 to 4"):
        draws.weigh(torch.randn(1, 4), torch.tensor([4]))
