import pytest
import torch
from torch.nn import functional as F

from formers.tasks import loss as loss_module
from formers.tasks.loss import summed_nats


def case(dtype=torch.float64, rows=11, vocab=7):
    chance = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, vocab, generator=chance, dtype=torch.float64).mul(3).to(dtype).requires_grad_()
    return logits, torch.randint(vocab, (rows,), generator=chance)


@pytest.fixture(params=[1, 10, 1 << 19], ids=["row by row", "a row at a time", "whole"])
def piece(request, monkeypatch):
    monkeypatch.setitem(loss_module.PIECE, "cpu", request.param)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_it_is_torchs_cross_entropy_with_its_gradient(piece, smoothing):
    logits, targets = case()
    expected = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)
    (slope,) = torch.autograd.grad(3 * expected, logits)
    found = summed_nats(logits, targets, smoothing)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(3 * found, logits)[0], slope)


def test_bf16_logits_are_summed_in_fp32():
    logits, targets = case(torch.bfloat16, rows=5000)
    found = summed_nats(logits, targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, F.cross_entropy(logits.float(), targets, reduction="sum"))
    found.backward()
    assert logits.grad.dtype == torch.bfloat16


def test_any_leading_shape_will_do_and_no_target_costs_nothing():
    logits, targets = case(rows=12)
    torch.testing.assert_close(
        summed_nats(logits.reshape(3, 4, 7), targets.reshape(3, 4)), summed_nats(logits, targets), rtol=0, atol=0
    )
    assert summed_nats(logits[:0], targets[:0]).item() == 0.0


def test_large_logits_do_not_overflow():
    logits, targets = case(torch.float32)
    found = summed_nats(logits * 1e4, targets)
    torch.testing.assert_close(found, F.cross_entropy(logits * 1e4, targets, reduction="sum"))


def test_a_second_backward_pass_is_refused_and_not_wrong():
    logits, targets = case()
    found = summed_nats(logits, targets)
    (3 * found).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found.backward()
