"""Products by tiles beside exact ones: as exact as float32, for all shapes, and the same whatever the number of threads."""

from itertools import product

import pytest
import torch
from torch import Tensor

from formers.errors import FormersError
from formers.native.gemm import library, multiply_into
from formers.native.gemm.library import NO_TILES, open_tiles

if open_tiles() == NO_TILES:
    pytest.skip(NO_TILES, allow_module_level=True)

SHAPES = [(1, 1, 1), (16, 16, 32), (33, 17, 45), (300, 100, 70), (257, 530, 600), (64, 1100, 129)]


def drawn(rows: int, columns: int, *, turned: bool = False, seed: int = 0) -> Tensor:
    given = torch.randn(columns, rows, generator=torch.Generator().manual_seed(seed))
    return given.mT if turned else given.reshape(rows, columns)


def multiplied(a: Tensor, b: Tensor, bias: Tensor | None = None, **how: int) -> Tensor:
    out = torch.full((a.shape[0], b.shape[1]), torch.nan)
    multiply_into([out], [a], [b], [] if bias is None else [bias], **how)
    return out


def error(found: Tensor, a: Tensor, b: Tensor) -> float:
    """In the mean, of what the numbers of a sum come to without their signs."""
    exact, size = a.double() @ b.double(), a.double().abs() @ b.double().abs()
    return float(((found - exact) / size).square().mean().sqrt())


@pytest.mark.parametrize("turned", list(product((False, True), repeat=2)))
@pytest.mark.parametrize("shape", SHAPES)
def test_is_as_exact_as_float32(shape: tuple[int, int, int], turned: tuple[bool, bool]) -> None:
    rows, columns, inner = shape
    a = drawn(rows, inner, turned=turned[0])
    b = drawn(inner, columns, turned=turned[1], seed=1)
    assert error(multiplied(a, b), a, b) <= 1.5 * max(error(a @ b, a, b), 2**-25)
    assert error(multiplied(a, b, parts=2), a, b) < 2**-16


def test_whole_numbers_of_24_bits_are_multiplied_exactly() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(-(2**24) + 1, 2**24, (70, 40), generator=generator).float()
    scale = 2.0 ** torch.randint(-60, 60, (40,), generator=generator)
    torch.testing.assert_close(multiplied(a, scale.diag()), a * scale, rtol=0, atol=0)
    torch.testing.assert_close(multiplied(scale.diag(), a.mT.contiguous()), scale[:, None] * a.mT, rtol=0, atol=0)


@pytest.mark.parametrize("rows", [40, 600])
def test_long_sums_are_cut_and_the_same_with_any_number_of_threads(rows: int) -> None:
    a, b, bias = drawn(rows, 5000, turned=True), drawn(5000, 90, seed=1), drawn(1, 90, seed=2)[0]
    alone = multiplied(a, b, bias, threads=1)
    for threads in (2, 3, 8):
        torch.testing.assert_close(multiplied(a, b, bias, threads=threads), alone, rtol=0, atol=0)
    assert error(alone - bias, a, b) < 2**-23


def test_a_bias_and_what_is_there_are_added() -> None:
    a, b, bias, there = drawn(50, 40), drawn(40, 60, seed=1), drawn(1, 60, seed=2)[0], drawn(50, 60, seed=3)
    torch.testing.assert_close(multiplied(a, b, bias), a @ b + bias)
    out = there.clone()
    multiply_into([out], [a], [b], [bias], add=True)
    torch.testing.assert_close(out, there + a @ b + bias)


def test_nothing_beside_the_rows_of_an_output_is_written() -> None:
    a, b = drawn(37, 40), drawn(40, 50, seed=1)
    whole = torch.zeros(39, 70)
    multiply_into([whole[1:38, 3:53]], [a], [b])
    torch.testing.assert_close(whole[1:38, 3:53], a @ b)
    whole[1:38, 3:53] = 0
    assert not whole.any()


def test_parts_of_larger_tensors_and_repeated_rows_are_read() -> None:
    large = drawn(80, 90)
    a, b = large[5:45, 7:70], drawn(1, 50, seed=1).expand(63, 50)
    torch.testing.assert_close(multiplied(a, b), a @ b)
    torch.testing.assert_close(multiplied(large[::2, ::3], large[:30, ::2]), large[::2, ::3] @ large[:30, ::2])


def test_several_products_at_once_are_those_one_by_one() -> None:
    sizes = [(5, 60), (700, 60), (1, 60), (90, 60)]
    a = [drawn(*size, seed=n) for n, size in enumerate(sizes)]
    b = [drawn(60, 300, turned=True, seed=9 + n) for n in range(len(sizes))]
    for threads in (1, 3):
        outs = [torch.empty(len(left), 300) for left in a]
        multiply_into(outs, a, b, threads=threads)
        for out, left, right in zip(outs, a, b, strict=True):
            torch.testing.assert_close(out, multiplied(left, right, threads=1), rtol=0, atol=0)
    multiply_into([], [], [])


@pytest.mark.parametrize("odd", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("parts", [2, 3])
def test_what_is_not_finite_stays_so_in_its_rows_and_nowhere_else(odd: float, parts: int) -> None:
    a, b = drawn(40, 40), drawn(40, 40, seed=1)
    a[3, 5] = odd
    finite = multiplied(a, b, parts=parts).isfinite()
    assert not finite[3].any() and finite[torch.arange(40) != 3].all()


def test_refuses_what_does_not_fit() -> None:
    a, b, out = drawn(4, 5), drawn(5, 6), torch.empty(4, 6)
    for outs, left, right, biases in (
        ([out], [a], [a], []),
        ([out.mT], [a], [b], []),
        ([out[0]], [a], [b], []),
        ([out], [a], [b], [out[:, 0]]),
        ([torch.empty(6, 4).mT], [a], [b], []),
        ([torch.empty(4, 0)], [a], [torch.empty(5, 0)], []),
    ):
        with pytest.raises(FormersError, match="do not multiply"):
            multiply_into(outs, left, right, biases)
    with pytest.raises(FormersError, match="in 2 or 3 parts"):
        multiply_into([out], [a], [b], parts=4)
    with pytest.raises(FormersError, match="as many outputs"):
        multiply_into([out, out], [a], [b])
    with pytest.raises(FormersError, match="tiles multiply float32 on the CPU, not float64"):
        multiply_into([out.double()], [a.double()], [b.double()])


def test_says_why_there_are_no_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without:
        def __getattr__(self, name: str) -> object:
            return lambda: library.ctypes.sizeof(library.Product) if name == "formers_product_size" else 0

    monkeypatch.setattr(library, "open_built", lambda stem: Without())
    monkeypatch.setattr(library, "open_tiles", library.open_tiles.__wrapped__)
    assert library.refuses_tiles(torch.zeros(1)) == NO_TILES
    with pytest.raises(FormersError, match="has no tiles"):
        multiplied(drawn(2, 2), drawn(2, 2))


def test_a_library_of_other_sources_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Longer(library.Product):
        _fields_ = (("more", library.ctypes.c_int64),)

    monkeypatch.setattr(library, "Product", Longer)
    assert "other sources" in str(library.open_tiles.__wrapped__())
