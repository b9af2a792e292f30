"""The scan is the recurrence, at every length, and so is its gradient."""

import pytest
import torch
from torch import Tensor

from formers.recurrence import scan

LENGTHS = [1, 2, 15, 16, 17, 33, 256, 257, 300, 4097]


def sequence(length: int, seed: int = 0) -> list[Tensor]:
    """Decays, some of them 0 and 1, what is fed, and the state before."""
    chance = torch.Generator().manual_seed(seed)
    decay = (2 * torch.rand(2, length, 3, generator=chance, dtype=torch.float64) - 0.5).clamp(0, 1)
    fed = torch.randn(2, length, 3, generator=chance, dtype=torch.float64)
    return [decay, fed, torch.randn(2, 3, generator=chance, dtype=torch.float64)]


def by_hand(decay: Tensor, fed: Tensor, state: Tensor) -> Tensor:
    states = []
    for t in range(fed.shape[1]):
        state = decay[:, t] * state + fed[:, t]
        states.append(state)
    return torch.stack(states, 1)


@pytest.mark.parametrize("length", LENGTHS)
def test_the_scan_is_the_loop(length: int) -> None:
    decay, fed, start = sequence(length)
    torch.testing.assert_close(scan(decay, fed, start), by_hand(decay, fed, start))


@pytest.mark.parametrize("length", [1, 5, 17, 40])
def test_gradients_are_finite_differences(length: int) -> None:
    assert torch.autograd.gradcheck(scan, [t.requires_grad_() for t in sequence(length)])


def test_pieces_are_the_whole_and_the_past_knows_no_future() -> None:
    decay, fed, start = sequence(50)
    whole = scan(decay, fed, start)
    first = scan(decay[:, :19], fed[:, :19], start)
    rest = scan(decay[:, 19:], fed[:, 19:], first[:, -1])
    torch.testing.assert_close(torch.cat([first, rest], 1), whole)
    other = fed.clone()
    other[:, 30:] += 1
    torch.testing.assert_close(scan(decay, other, start)[:, :30], whole[:, :30], rtol=0, atol=0)


def test_the_inputs_stay_as_they_are() -> None:
    given = sequence(33)
    before = [t.clone() for t in given]
    scan(*given)
    for now, then in zip(given, before, strict=True):
        torch.testing.assert_close(now, then, rtol=0, atol=0)
