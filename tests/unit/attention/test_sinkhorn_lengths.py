"""Sparse Sinkhorn attention over any length, with padding, and continued step by step."""

import pytest
import torch
from sinkhorn_forms import DIM, FORMS, layer, places, whole
from torch import Tensor

from formers.call import Call
from formers.places import Places
from formers.state import select

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 8, 13, 31])
def test_any_length(form: str, length: int) -> None:
    assert whole(layer(form), torch.randn(2, length, DIM)).isfinite().all()


@pytest.mark.parametrize("form", list(FORMS))
def test_a_row_alone_equals_the_row_in_a_batch(form: str) -> None:
    module, x, mask = layer(form), torch.randn(5, 19, DIM), torch.ones(5, 19, dtype=torch.bool)
    mask[0, :9] = False
    mask[1, 13:] = False
    mask[2, 3:8] = False
    mask[3, 1:] = False
    together = whole(module, x, mask)
    for i in range(5):
        torch.testing.assert_close(together[i][mask[i]], whole(module, x[i : i + 1, mask[i]])[0])


@pytest.mark.parametrize("form", list(FORMS))
def test_padding_is_not_read_and_a_row_of_it_does_no_harm(form: str) -> None:
    module, mask = layer(form), torch.ones(2, 11, dtype=torch.bool)
    mask[0, 6:], mask[1] = False, False
    x = torch.randn(2, 11, DIM).requires_grad_()
    out = whole(module, x, mask)
    assert out.isfinite().all()
    out[mask].square().sum().backward()
    assert not x.grad[~mask].any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


def test_the_future_has_no_gradient() -> None:
    module, x = layer("causal").train(), torch.randn(1, 15, DIM).requires_grad_()
    out = whole(module, x)
    for t in range(15):
        (grad,) = torch.autograd.grad(out[:, t].square().sum(), x, retain_graph=True)
        assert not grad[:, t + 1 :].any()
        assert grad[:, t].any() and (t < 4 or grad[:, : t - t % 4].any(-1).all())


def streamed(module, x: Tensor, cuts: list[int], mask: Tensor | None = None) -> Tensor:
    state, pieces = None, []
    seen: Tensor | int = 0
    for start, stop in zip([0, *cuts], [*cuts, x.shape[1]], strict=True):
        part = None if mask is None else mask[:, start:stop]
        at = places(x[:, start:stop], part, seen)
        seen = seen + (stop - start if part is None else part.sum(1))
        out = module(x[:, start:stop], Call(at), state)
        state = out.state
        pieces.append(out.y)
    return torch.cat(pieces, 1)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("cuts", [list(range(1, 23)), [1], [4, 8], [7], [16, 17, 18], [5, 10, 15, 20]], ids=str)
def test_pieces_equal_the_whole(cuts: list[int], train: bool) -> None:
    module, x = layer("causal").train(train), torch.randn(2, 23, DIM)
    torch.testing.assert_close(streamed(module, x, cuts), whole(module, x))


@pytest.mark.parametrize("cuts", [list(range(1, 23)), [4], [11, 12], [9]], ids=str)
def test_ragged_pieces_equal_the_whole(cuts: list[int]) -> None:
    module, x, mask = layer("causal"), torch.randn(4, 23, DIM), torch.ones(4, 23, dtype=torch.bool)
    mask[0, :8] = False
    mask[1, 15:] = False
    mask[2, 6:13] = False
    torch.testing.assert_close(streamed(module, x, cuts, mask)[mask], whole(module, x, mask)[mask])


def test_a_state_is_a_value_whose_rows_can_be_chosen() -> None:
    module, x = layer("causal"), torch.randn(3, 14, DIM)
    state = module(x[:, :6], Call(Places.run(0, 6))).state
    rows = torch.tensor([2, 0])
    later = Call(Places.run(6, 8))
    module(x[:, 6:], later, state)
    chosen = module(x[rows, 6:], Call(Places.run(6, 8)), select(state, rows)).y
    torch.testing.assert_close(chosen, whole(module, x)[rows, 6:])
