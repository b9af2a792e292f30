"""A controller whose logits are kept nowhere chooses, weighs and learns as one whose logits are there."""

import pytest
import torch
from torch import Tensor

from formers import FormersError, SparseFF
from formers.call import Call
from formers.native import control, draws
from formers.native.control import Matrices
from formers.places import Places
from formers.sparse import controller, feedforward
from formers.sparse.choosing import best, chance_of, sample
from formers.spec import Site

SHAPES = [(1, 2, 1), (3, 5, 3), (2, 16, 8), (9, 64, 8), (17, 50, 20), (2, 300, 4)]  # blocks, units of each, rank


def matrices(blocks: int, size: int, rank: int) -> Matrices:
    generator = torch.Generator().manual_seed(size)
    weight, bias = (
        torch.randn(blocks * size, rank, generator=generator),
        torch.randn(blocks * size, generator=generator),
    )
    return Matrices(weight, bias, size)


def some(rank: int, rows: int = 70) -> Tensor:
    return torch.randn(rows, rank, generator=torch.Generator().manual_seed(rank))


def logits_of(inner: Tensor, of: Matrices) -> Tensor:
    return torch.nn.functional.linear(inner, of.weight, of.bias).unflatten(-1, (-1, of.block))


REASON = control.refuses_control(some(1), matrices(1, 2, 1))
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.mark.parametrize("shape", SHAPES)
def test_choices_and_chances_are_those_of_the_logits(shape: tuple[int, int, int], kernel: str) -> None:
    of, inner = matrices(*shape), some(shape[2])
    logits = logits_of(inner, of)
    found = control.decide(inner, of, kernel=kernel)
    assert torch.equal(found.picked, logits.argmax(-1).int())
    torch.testing.assert_close(found.chances, logits.softmax(-1).amax(-1), atol=1e-6, rtol=1e-5)
    shares = torch.rand(logits.shape[:2], generator=torch.Generator().manual_seed(3))
    drawn = control.decide(inner, of, shares=shares, temperature=0.5, kernel=kernel).picked
    assert (drawn != draws.draw(logits, shares, 0.5)).sum() <= 1  # where a share falls between two roundings
    again = control.decide(inner, of, picked=drawn, shares=shares, kernel=kernel)
    assert torch.equal(again.picked, drawn)
    expected = logits.softmax(-1).gather(-1, drawn.long()[..., None])[..., 0]
    torch.testing.assert_close(again.chances, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_through_the_logits(shape: tuple[int, int, int], kernel: str) -> None:
    weight, bias, size = matrices(*shape)
    inputs = [t.double().requires_grad_() for t in (some(shape[2]), weight, bias)]
    picked = torch.randint(size, (70, shape[0]), generator=torch.Generator().manual_seed(1))
    upstream = torch.randn(70, shape[0], generator=torch.Generator().manual_seed(2)).relu()
    chances = logits_of(inputs[0], Matrices(*inputs[1:], size)).softmax(-1).gather(-1, picked[..., None])[..., 0]
    wanted = torch.autograd.grad(chances, inputs, upstream.double())
    of = Matrices(weight, bias, size)
    found = control.decide(some(shape[2]), of, picked=picked, kernel=kernel)
    told = control.teach(upstream, some(shape[2]), of, found, kernel=kernel)
    for each, exact in zip(told, wanted, strict=True):
        torch.testing.assert_close(each, exact.float(), atol=1e-5, rtol=1e-4)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    of, inner, before = matrices(9, 64, 8), some(8), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found = control.decide(inner, of)
            results.append((*found, *control.teach(torch.ones_like(found.chances), inner, of, found)))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("temperature", [0.0, 0.1, 1.0])
def test_a_generator_draws_what_it_draws_from_logits(temperature: float) -> None:
    of, inner = matrices(4, 16, 8), some(8).unflatten(0, (7, 10))
    logits = logits_of(inner, of)
    picked, chances = controller.decided(inner, of, None, temperature, torch.Generator().manual_seed(5))
    assert torch.equal(picked, sample(logits, temperature, torch.Generator().manual_seed(5)))
    torch.testing.assert_close(chances, chance_of(logits, picked))
    largest, _ = controller.decided(inner, of)
    assert torch.equal(largest, best(logits)) and largest.dtype == torch.uint8
    assert controller.decided(inner, of, picked)[0] is picked


def test_odd_numbers_choose_something() -> None:
    of = matrices(3, 5, 2)
    for odd in (torch.nan, torch.inf, -torch.inf):
        inner = torch.full((2, 2), odd)
        found = control.decide(inner, of, shares=torch.full((2, 3), 0.5))
        assert ((found.picked >= 0) & (found.picked < 5)).all()


def test_refuses_what_it_cannot_choose_among() -> None:
    of = matrices(1, 2, 1)
    assert "up to 1024, not 2048" in str(control.refuses_control(some(1), matrices(1, 2048, 1)))
    assert "not float64" in str(control.refuses_control(some(1).double(), of))
    with pytest.raises(FormersError, match="from 0 to 1 in blocks of 2, not from 2 to 2"):
        control.decide(some(1), of, picked=torch.full((70, 1), 2))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_layer_computes_the_same_with_and_without(
    monkeypatch: pytest.MonkeyPatch, weighted: bool, training: bool
) -> None:
    torch.manual_seed(0)
    layer = SparseFF(32, block=8, rank=4, hard=1.0, weighted=weighted).build(Site(dim=12)).train(training)
    x = torch.randn(2, 40, 12, requires_grad=True)
    by = [x, *layer.parameters()]
    results, called = [], []
    real = feedforward.decided
    monkeypatch.setattr(feedforward, "decided", lambda *given: called.append(1) or real(*given))
    for refusal in (None, "no"):
        monkeypatch.setattr(feedforward, "refuses_control", lambda *_, refusal=refusal: refusal)
        out = layer(x, Call(Places.run(0, 40), seed=3, remember=False))
        results.append((out.y, out.choices, torch.autograd.grad(out.y.sin().sum(), by, allow_unused=True)))
    assert called == [1] and torch.equal(results[0][1], results[1][1])
    torch.testing.assert_close(results[0][0], results[1][0])
    for one, other in zip(results[0][2], results[1][2], strict=True):
        if one is None or other is None:
            assert one is None or not one.any()
            assert other is None or not other.any()
        else:
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
