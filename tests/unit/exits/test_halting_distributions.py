"""Halting distributions against the paper's products, written out."""

import pytest
import torch

from formers.exits.halting.distributions import cross_entropy, geometric


def test_each_exit_has_its_chance_of_what_came_so_far() -> None:
    leaves = torch.tensor([0.3, 0.5, 0.9], dtype=torch.float64)
    wanted = torch.tensor([0.3, 0.7 * 0.5, 0.7 * 0.5 * 0.9, 0.7 * 0.5 * 0.1], dtype=torch.float64)
    torch.testing.assert_close(geometric(leaves.logit()).exp(), wanted)


def test_the_last_exit_takes_what_is_left() -> None:
    q = geometric(3 * torch.randn(4, 5, 6, dtype=torch.float64)).exp()
    torch.testing.assert_close(q.sum(-1), torch.ones(4, 5, dtype=torch.float64))


@pytest.mark.parametrize("sure", [-200.0, 200.0])
def test_those_who_are_sure_have_logarithms_and_gradients(sure: float) -> None:
    logits = torch.full((3,), sure, requires_grad=True)
    log_q = geometric(logits)
    assert log_q.isfinite().all()
    assert log_q.argmax() == (0 if sure > 0 else 3)
    log_q.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_cross_entropy_counts_what_is_real() -> None:
    log_q = torch.randn(2, 3, 4).log_softmax(-1).requires_grad_()
    wanted = torch.tensor([[1, 4, 2], [3, 9, 9]])[:, :3].clamp(max=4)
    real = torch.tensor([[True, True, True], [True, False, False]])
    picked = [log_q[0, 0, 0], log_q[0, 1, 3], log_q[0, 2, 1], log_q[1, 0, 2]]
    torch.testing.assert_close(cross_entropy(log_q, wanted, real), -torch.stack(picked).mean())
    torch.testing.assert_close(cross_entropy(log_q[:1], wanted[:1]), -torch.stack(picked[:3]).mean())
    assert cross_entropy(log_q, wanted, torch.zeros_like(real)) == 0
