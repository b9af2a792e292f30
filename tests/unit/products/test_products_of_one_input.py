"""Products of one input: the same numbers as layer by layer, in every way that gradients may be asked for."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from formers.products.layers import SHORT, products


@pytest.fixture(autouse=True)
def every_input_counts_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("formers.products.layers.SHORT", 0)


def layers(*, bias: bool = True) -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(3, wide, bias=bias, dtype=torch.float64) for wide in (2, 4, 1)]


def drawn() -> Tensor:
    return torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()


def gradients(outs: Sequence[Tensor], by: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(sum(out.sin().sum() for out in outs), by)


def test_a_short_input_goes_layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("formers.products.layers.SHORT", SHORT)
    x = torch.randn(SHORT // 4, 4, requires_grad=True)
    each = [nn.Linear(4, 1), nn.Linear(4, 1)]
    names = [type(products(given, *each)[0].grad_fn).__name__ for given in (x, torch.cat([x, x[:1]]))]
    assert "Products" not in names[0] and "Products" in names[1]


@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_those_of_the_layers(bias: bool) -> None:
    each, x = layers(bias=bias), drawn()
    by = [x, *(parameter for layer in each for parameter in layer.parameters())]
    apart = [layer(x) for layer in each]
    together = products(x, *each)
    torch.testing.assert_close(together, tuple(apart))
    assert together[0].grad_fn is not apart[0].grad_fn and "Products" in type(together[0].grad_fn).__name__
    torch.testing.assert_close(gradients(together, by), gradients(apart, by))


def test_frozen_layers_and_inputs_get_no_gradient() -> None:
    each, x = layers(), drawn().detach()
    each[0].requires_grad_(False)
    sum(out.sum() for out in products(x, *each)).backward()
    assert each[0].weight.grad is None and each[0].bias.grad is None
    torch.testing.assert_close(each[1].weight.grad, x.sum((0, 1)).expand(4, 3))


def test_gradients_can_be_differentiated() -> None:
    each, x = layers(), drawn()
    assert torch.autograd.gradgradcheck(lambda given: products(given, *each), (x,))


def test_a_layer_that_stands_in_for_another_is_called() -> None:
    class Adapted(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    each, x = layers(), drawn()
    adapted = Adapted(3, 2, dtype=torch.float64)
    torch.testing.assert_close(products(x, adapted, each[1])[0], adapted(x))


def test_hooks_are_told() -> None:
    each, x = layers(), drawn()
    seen: list[torch.Size] = []
    each[1].register_forward_hook(lambda _module, _given, out: seen.append(out.shape))
    products(x, *each)
    assert seen == [(2, 5, 4)]


def test_under_autocast_the_products_are_narrow() -> None:
    each, x = [nn.Linear(3, 2) for _ in range(2)], torch.randn(2, 5, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert {out.dtype for out in products(x, *each)} == {torch.bfloat16}
