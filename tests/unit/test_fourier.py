"""Fourier mixing against its definition, a sum over all pairs of places and channels."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from formers import MLP, Block, ConfigError, Decoder, Embedding, Encoder, Fourier, Learned, ProjectedEmbedding
from formers.call import Call
from formers.fourier import transform
from formers.spec import Site
from formers.tokens import place

SHAPES = [(1, 1, 1), (2, 1, 6), (1, 7, 1), (2, 5, 6), (3, 6, 5), (1, 8, 8), (2, 2, 3)]


def defined(x: Tensor) -> Tensor:
    """y[t, c] = sum over n, m of x[n, m] cos(2 pi (t n / N + c m / M))."""
    (places, channels) = (torch.outer(r, r) / max(len(r), 1) for r in (torch.arange(n).double() for n in x.shape[1:]))
    angle = 2 * math.pi * (places[:, :, None, None] + channels[None, None])  # t, n, c, m
    return torch.einsum("bnm,tncm->btc", x, angle.cos())


def run(x: Tensor, mask: Tensor | None = None) -> Tensor:
    at = place(torch.zeros(x.shape[:2], dtype=torch.int64), 0, mask, None)
    y: Tensor = Fourier().build(Site(dim=x.shape[2]))(x, Call(at)).y
    return y


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_definition(shape: tuple[int, int, int]) -> None:
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(run(x), defined(x))
    torch.testing.assert_close(run(x), torch.fft.fftn(x, dim=(1, 2)).real)


def test_the_real_part_is_taken_once() -> None:
    x = torch.randn(1, 5, 6, dtype=torch.float64)
    twice = torch.fft.fft(torch.fft.fft(x, dim=2).real, dim=1).real
    assert (run(x) - twice).abs().max() > 0.5


def test_gradients() -> None:
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(transform, x)
    assert torch.autograd.gradgradcheck(lambda t: transform(t).square(), x)


def test_rows_are_transformed_over_their_own_tokens() -> None:
    x, mask = torch.randn(5, 9, 4, dtype=torch.float64), torch.ones(5, 9, dtype=torch.bool)
    mask[0, :4], mask[1, 5:], mask[2, [2, 6, 7, 8]], mask[3] = False, False, False, False
    y = run(x, mask)
    for row, real, out in zip(x, mask, y, strict=True):
        if real.any():
            torch.testing.assert_close(out[real], run(row[real][None])[0])
        assert not out[~real].any()
    padded = run(x)
    assert (padded[1, :5] - y[1, :5]).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_short_numbers_are_transformed_in_single_precision(dtype: torch.dtype) -> None:
    x = torch.randn(2, 12, 8, dtype=dtype)
    assert run(x).dtype == dtype
    torch.testing.assert_close(run(x), defined(x.double()).to(dtype), rtol=1e-2, atol=1e-2)


def test_decoders_refuse_it_with_the_reason() -> None:
    with pytest.raises(ConfigError, match=r"mixes all tokens into each(.|\n)*fix: Attention\(heads=8\)"):
        Decoder("mine", 40, 16, (Block((Fourier(), MLP(8))),)).build()


def test_the_embedding_is_projected_before_it_is_dropped_out() -> None:
    torch.manual_seed(0)
    fields: dict[str, Any] = {"position": Learned(8), "dropout": 0.5}
    blocks = (Block((MLP(8),)),)
    plain, projected = (
        Encoder("mine", 40, 16, blocks, embedding).build().embedding
        for embedding in (Embedding(**fields), ProjectedEmbedding(**fields))
    )
    projected.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        projected.proj.bias.add_(3)
    tokens = torch.randint(40, (2, 8))
    call = Call(place(tokens, 0, None, None))
    torch.testing.assert_close(projected.eval()(tokens, call), projected.proj(plain.eval()(tokens, call)))
    dropped = projected.train()(tokens, call) == 0
    assert 0.2 < dropped.double().mean() < 0.8
