"""Chosen units computed alone by the native kernels are those that PyTorch gathers, and so are their gradients."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from formers import FormersError
from formers.call import Call
from formers.native import units
from formers.places import Places
from formers.sparse import SparseFF, active
from formers.spec import Site

REASON = units.refuses_units(torch.empty(1))
needs_native = pytest.mark.skipif(REASON is not None, reason=str(REASON))
SHAPES = [(37, 5, 6, 23), (64, 8, 16, 64), (3, 1, 2, 7), (300, 9, 4, 131), (0, 3, 2, 4)]


def kernels() -> Iterator[str]:
    for name in ("plain", "avx2", "avx512"):
        values = torch.ones(1, 1)
        try:
            units.products(values, values.expand(2, 1), torch.zeros(1, 1, dtype=torch.uint8), kernel=name)
        except FormersError:
            continue
        yield name


@needs_native
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("threads", [1, 3])
def test_every_kernel_multiplies_chosen_rows(shape: tuple[int, ...], threads: int) -> None:
    rows, blocks, size, width = shape
    torch.manual_seed(0)
    x, matrix = torch.randn(rows, width), torch.randn(blocks * size, width)
    values, bias = torch.randn(rows, blocks).relu(), torch.randn(width)
    picked = torch.randint(size, (rows, blocks), dtype=torch.uint8)
    at = picked.long() + torch.arange(blocks) * size
    made = (values[..., None] * x[:, None]).flatten(0, 1)
    before, close = torch.get_num_threads(), {"atol": 1e-4, "rtol": 1e-4}
    torch.set_num_threads(threads)
    try:
        assert "plain" in list(kernels())
        for kernel in kernels():
            products = units.products(x, matrix, picked, kernel=kernel)
            torch.testing.assert_close(products, (matrix[at] @ x[..., None]).squeeze(-1), **close)
            sums = units.sums(values, matrix, picked, kernel=kernel)
            torch.testing.assert_close(sums, (values[:, None] @ matrix[at]).squeeze(1), **close)
            torch.testing.assert_close(units.sums(values, matrix, picked, bias, kernel=kernel), sums + bias, **close)
            told = torch.zeros_like(matrix).index_add_(0, at.flatten(), made)
            torch.testing.assert_close(units.outers(values, x, picked, size, kernel=kernel), told, **close)
            turned = units.outers(values, x, picked, size, turned=True, kernel=kernel)
            torch.testing.assert_close(turned, told.mT.contiguous(), **close)
    finally:
        torch.set_num_threads(before)


@needs_native
def test_choices_that_are_none_are_refused() -> None:
    x, matrix = torch.randn(2, 4), torch.randn(6, 4)
    for wrong in (3, 200):
        with pytest.raises(FormersError, match=f"choices lie from 0 to 2 in blocks of 3, not from 1 to {wrong}"):
            units.products(x, matrix, torch.tensor([[1, wrong], [1, 1]], dtype=torch.uint8))


def test_what_is_not_fp32_on_the_cpu_is_refused_in_words() -> None:
    assert "not float64 on cpu" in str(units.refuses_units(torch.empty(1, dtype=torch.float64)))
    assert "not float32 on meta" in str(units.refuses_units(torch.empty(1, device="meta")))


def results(layer: nn.Module, x: Tensor, call: Call) -> list[Tensor]:
    out = layer(x, call)
    weights = torch.linspace(-1, 1, out.y.numel()).view_as(out.y)
    own = [x, *(p for name, p in layer.named_parameters() if layer.training or "controller" not in name)]
    return [out.y, out.choices, *torch.autograd.grad((out.y * weights).sum(), own)]


@needs_native
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_a_layer_has_the_same_values_and_gradients_without(
    training: bool, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = SparseFF(96, 8, 6, hard=1.0, weighted=weighted).build(Site(20)).train(training)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    x, call, ran = torch.randn(3, 17, 20, requires_grad=True), Call(Places.run(0, 17), seed=2), []
    monkeypatch.setattr(active.native, "sums", lambda *given, sums=units.sums: ran.append(given) or sums(*given))
    natively = results(layer, x, call)
    assert len(ran) == 2
    monkeypatch.setattr(active, "refuses", lambda *given: "not here")
    assert not active.pays(x, layer._weights)
    torch.testing.assert_close(natively, results(layer, x, call), atol=1e-4, rtol=1e-4)
    assert len(ran) == 2


@needs_native
def test_autocast_and_few_tokens_are_left_to_pytorch() -> None:
    layer, x = SparseFF(96, 8, 6).build(Site(20)), torch.randn(3, 17, 20)
    assert active.refuses(x, layer._weights) is None
    assert "faster from 16 tokens on, and these are 15" in str(active.refuses(x[:, :5], layer._weights))
    with torch.autocast("cpu", torch.bfloat16):
        assert "autocast" in str(active.refuses(x, layer._weights))


@needs_native
def test_what_does_not_learn_gets_no_gradient() -> None:
    layer, x = SparseFF(96, 8, 6, hard=1.0).build(Site(20)), torch.randn(3, 17, 20)
    layer.up.weight.requires_grad_(False)
    layer(x, Call(Places.run(0, 17))).y.sum().backward()
    assert layer.up.weight.grad is None and layer.down.weight.grad.any() and layer.controller_in.weight.grad.any()
