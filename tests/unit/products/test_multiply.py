"""Which products tiles take, and that all else stays as PyTorch has it."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from formers.native.gemm import refuses_tiles
from formers.products import Matrix, linear, products
from formers.products import multiply as module
from formers.products.multiply import multiply, multiply_all, parts_of_tiles

needs_tiles = pytest.mark.skipif(refuses_tiles() is not None, reason=str(refuses_tiles()))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every product counts as a large one."""
    monkeypatch.setattr(module, "LEAST", 0)
    monkeypatch.setattr(module, "NARROW", 1)
    monkeypatch.setattr("formers.products.layers.SHORT", 0)


@pytest.fixture
def by_tiles(small: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """In how many parts each product was made by tiles."""
    seen: list[int] = []
    real = module.multiply_into

    def counted(*given: list[Tensor], add: bool, parts: int) -> None:
        seen.append(parts)
        real(*given, add=add, parts=parts)

    monkeypatch.setattr(module, "multiply_into", counted)
    yield seen


@pytest.fixture
def precision() -> Iterator[Callable[[str], None]]:
    before = torch.get_float32_matmul_precision()
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision(before)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(out: Tensor, by: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(out.sin().sum(), by)


@needs_tiles
def test_large_products_of_float32_are_made_by_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    side = module.NARROW
    monkeypatch.setattr(module, "LEAST", side**3 * len("four") // torch.get_num_threads())
    x = drawn(4 * side, side)
    assert parts_of_tiles([(4 * side, side, side)], x) == 3
    assert parts_of_tiles([(4 * side - 1, side, side)], x) is None
    assert parts_of_tiles([(8 * side, side - 1, side)], x) is None
    assert parts_of_tiles([(2 * side, side, side)] * 2, x) == 3
    assert parts_of_tiles([(4 * side, side, side)], x.double()) is None
    assert parts_of_tiles([(4 * side, side, side)], x.to("meta")) is None


@needs_tiles
def test_pytorch_says_how_exact_products_are(precision: Callable[[str], None], by_tiles: list[int]) -> None:
    a, b = drawn(60, 50), drawn(50, 40, seed=1)
    exact, errors = a.double() @ b.double(), {}
    for name in ("highest", "high"):
        precision(name)
        errors[name] = float((multiply(a, b) - exact).abs().max())
    assert by_tiles == [3, 2] and errors["highest"] < 1e-5 < errors["high"] < 1e-3
    precision("medium")
    torch.testing.assert_close(multiply(a, b), a @ b, rtol=0, atol=0)
    assert by_tiles == [3, 2]


@needs_tiles
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_and_its_gradients_are_those_of_pytorch(bias: bool, by_tiles: list[int]) -> None:
    ours, theirs = Matrix(50, 40, bias=bias), nn.Linear(50, 40, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    for x in (drawn(3, 7, 50), drawn(7, 50), drawn(50, 7).mT, drawn(7, 3, 50).transpose(0, 1)):
        x.requires_grad_()
        torch.testing.assert_close(ours(x), theirs(x))
        mine, plain = ([x, *layer.parameters()] for layer in (ours, theirs))
        torch.testing.assert_close(gradients(ours(x), mine), gradients(theirs(x), plain))
        with torch.no_grad():
            torch.testing.assert_close(ours(x), theirs(x))
    assert len(by_tiles) == 4 * (3 + 2)


@needs_tiles
def test_gradients_of_several_layers_are_added_up_by_the_products(by_tiles: list[int]) -> None:
    each, x = [Matrix(30, wide) for wide in (20, 40)], drawn(2, 9, 30).requires_grad_()
    by = [x, *(parameter for layer in each for parameter in layer.parameters())]
    together = torch.cat(products(x, *each), -1)
    assert len(by_tiles) == 2
    apart = torch.cat([F.linear(x, layer.weight, layer.bias) for layer in each], -1)
    torch.testing.assert_close(together, apart)
    torch.testing.assert_close(gradients(together, by), gradients(apart, by))
    assert len(by_tiles) == 2 + 4


@needs_tiles
def test_a_gradient_can_be_differentiated_again(by_tiles: list[int]) -> None:
    layer, x = Matrix(6, 5), drawn(4, 6).requires_grad_()

    def second(y: Tensor) -> Tensor:
        (grad,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), x)[0]

    torch.testing.assert_close(second(layer(x)), second(F.linear(x, layer.weight, layer.bias)))
    assert by_tiles


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
def test_what_looks_into_products_gets_pytorchs(small: None) -> None:
    layer, x = Matrix(6, 5), drawn(4, 6)
    sums = torch.func.vmap(torch.func.grad(lambda row: layer(row[None]).square().sum()))(x)
    torch.testing.assert_close(sums, 2 * layer(x) @ layer.weight)
    _, slope = torch.func.jvp(layer, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(slope, torch.ones(4, 6) @ layer.weight.mT)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))


def test_a_tensor_that_is_no_plain_one_gets_pytorchs(small: None) -> None:
    class Told(torch.Tensor):
        pass

    x, weight = drawn(4, 6).as_subclass(Told), drawn(5, 6, seed=1)
    assert isinstance(linear(x, weight), Told)


def test_shapes_that_do_not_fit_are_refused_as_pytorch_does(small: None) -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        linear(drawn(4, 6), drawn(5, 7))
    assert linear(drawn(6), drawn(5, 6)).shape == (5,)
    assert linear(drawn(0, 6), drawn(5, 6)).shape == (0, 5)


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("least", [0, 1 << 60])
def test_both_ways_write_the_same(monkeypatch: pytest.MonkeyPatch, add: bool, bias: bool, least: int) -> None:
    monkeypatch.setattr(module, "LEAST", least)
    monkeypatch.setattr(module, "NARROW", 1)
    a, b = [drawn(rows, 20, seed=rows) for rows in (3, 40)], [drawn(20, 30, seed=n) for n in range(2)]
    biases = [drawn(30, seed=5 + n) for n in range(2)] if bias else []
    there = [drawn(len(left), 30, seed=9) for left in a]
    outs = [t.clone() for t in there]
    multiply_all(outs, a, b, biases, add=add)
    for n, out in enumerate(outs):
        wanted = a[n] @ b[n] + (biases[n] if bias else 0) + (there[n] if add else 0)
        torch.testing.assert_close(out, wanted)


@needs_tiles
def test_pytorch_knows_the_operator() -> None:
    a, b, bias = drawn(5, 6), drawn(6, 7), drawn(7)
    given = ([torch.empty(5, 7)], [a], [b], [bias], False, 3)
    torch.library.opcheck(torch.ops.formers.multiply_into.default, given)


@needs_tiles
def test_its_operations_are_counted(small: None) -> None:
    counts = []
    for layer in (Matrix(6, 7), nn.Linear(6, 7)):
        with FlopCounterMode(display=False) as counter:
            layer(drawn(5, 6).requires_grad_()).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] == 3 * 2 * 5 * 6 * 7
