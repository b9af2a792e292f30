"""The convolution over time and modules against its formula, and tokens without the padding among them."""

import pytest
import torch
from torch import Tensor, nn

from formers import ConfigError
from formers.places import Places
from formers.sparse import ModuleConv
from formers.sparse.convolution import unbroken


def conv(length: int = 3, width: int = 3, inputs: int = 8, outputs: int = 12) -> ModuleConv:
    torch.manual_seed(0)
    built = ModuleConv(inputs, outputs, 4, length, width).double()
    nn.init.normal_(built.bias)
    return built


def plain(built: ModuleConv, x: Tensor) -> Tensor:
    """Tap by tap: x (B, T, inputs) with nothing before it."""
    made, inner, kernel = built.weight.shape[:2], x.unflatten(-1, (4, -1)), built.weight
    batch, length = x.shape[:2]
    y = x.new_zeros(batch, length, 4, made[0])
    for j in range(built.length):
        for n in range(built.width):
            back, aside = built.length - 1 - j, n - built.width // 2
            for t in range(back, length):
                for s in range(max(0, -aside), min(4, 4 - aside)):
                    y[:, t, s] += inner[:, t - back, s + aside] @ kernel[:, :, j, n].T
    return (y + built.bias).flatten(2)


@pytest.mark.parametrize("length", [1, 2, 3, 4])
@pytest.mark.parametrize("width", [1, 3, 5])
def test_it_is_the_formula(length: int, width: int) -> None:
    built, x = conv(length, width), torch.randn(2, 7, 8, dtype=torch.float64)
    rows = unbroken(x, Places.run(0, 7), None, built.back).rows
    torch.testing.assert_close(built(rows), plain(built, x))


def test_gradients_are_finite_differences() -> None:
    built, rows = conv(), torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda rows, *_: built(rows), [rows, *built.parameters()])


@pytest.mark.parametrize("back", [0, 1, 2, 5])
@pytest.mark.parametrize("cuts", [[9], [4, 5], [1] * 9, [2, 1, 6]], ids=str)
def test_wherever_padding_and_cuts_are_each_token_meets_the_real_ones_before_it(back: int, cuts: list[int]) -> None:
    real = torch.tensor([[0, 1, 1, 0, 0, 1, 1, 1, 0], [1] * 9, [0] * 9, [1, 0, 0, 0, 0, 0, 0, 0, 1]]).bool()
    x, tail, made = torch.randn(4, 9, 2, dtype=torch.float64), None, []
    for part, mask in zip(x.split(cuts, 1), real.split(cuts, 1), strict=True):
        met = unbroken(part, Places(torch.zeros(1, part.shape[1]).long(), mask), tail, back)
        windows = met.rows.unfold(1, back + 1, 1).transpose(2, 3).flatten(2)  # each with `back` before it
        made.append(met.put_back(windows))
        tail = met.tail
    found = torch.cat(made, 1)
    for row in range(4):
        mine = torch.cat([x.new_zeros(back, 2), x[row, real[row]]])
        wanted = [mine[t : t + back + 1].flatten() for t in range(len(mine) - back)]
        torch.testing.assert_close(list(found[row, real[row]]), wanted, rtol=0, atol=0)
        torch.testing.assert_close(tail[row], mine[len(mine) - back :], rtol=0, atol=0)


def test_tails_do_not_hold_on_to_all_that_was_before_them() -> None:
    x = torch.randn(1, 100, 4)
    for real in (None, torch.ones(1, 100, dtype=torch.bool)):
        tail = unbroken(x, Places(torch.arange(100)[None], real), None, 2).tail
        assert tail.untyped_storage().nbytes() == 2 * 4 * 4


def test_it_begins_by_its_fan_or_as_published() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 300, 256)
    built = ModuleConv(256, 256, 8)
    # Modules at either end see two neighbours and not three.
    assert float(built(x).detach().var()) == pytest.approx(1 - 2 / 3 / 8, rel=0.1)
    published = ModuleConv(256, 256, 8, init="published")
    assert float(published.weight.detach().std()) == pytest.approx((1 / 32) ** 0.5, rel=0.05)
    assert float(published(x).detach().var()) == pytest.approx(9 * (1 - 2 / 3 / 8), rel=0.1)
    assert 3e-7 < float(published.bias.detach().std()) < 3e-6
    assert not built.bias.any()


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(ConfigError, match="a kernel of 3 tokens and 2 modules has no middle module"):
        ModuleConv(8, 8, 4, 3, 2)
    with pytest.raises(ConfigError, match="a kernel of 0 tokens"):
        ModuleConv(8, 8, 4, 0)
    with pytest.raises(ConfigError, match="10 numbers do not split into 4 modules"):
        ModuleConv(10, 8, 4)


def test_products_are_counted_for_one_token() -> None:
    assert conv().products == 4 * 2 * 3 * 3 * 3
