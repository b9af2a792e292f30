"""Blocks beside which other blocks are mixed: the native operator against a plain softmax over both."""

import pytest
import torch
from torch import Tensor

from formers import native
from formers.attention import sinkhorn_causal
from formers.attention.sinkhorn import SinkhornAttention
from formers.attention.sorted import beside
from formers.call import Call
from formers.places import Places
from formers.spec.core import Site

pytestmark = pytest.mark.skipif(native.missing() is not None, reason="the native library was not built")

HEADS, WIDTH = 3, 20
SIZES = [(2, 16), (4, 16), (9, 8), (5, 2), (40, 64)]  # blocks, tokens of a block; the last is more than one range


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), requires_grad=True)


def plainly(q: Tensor, k: Tensor, v: Tensor, matrix: Tensor, block: int) -> Tensor:
    """With all scores, and all blocks mixed by a product."""
    length = q.shape[2]
    far_k, far_v = (
        torch.einsum("bhwn,bhntd->bhwtd", matrix, t.unflatten(2, (-1, block))).flatten(2, 3) for t in (k, v)
    )
    at = torch.arange(length)
    own_block = at[:, None] // block == at // block
    seen = torch.cat([own_block & (at <= at[:, None]), own_block & (at[:, None] >= block)], -1)
    scores = torch.cat([q @ k.mT, q @ far_k.mT], -1) * q.shape[-1] ** -0.5
    return scores.masked_fill(~seen, float("-inf")).softmax(-1) @ torch.cat([v, far_v], 2)


@pytest.mark.parametrize(("blocks", "block"), SIZES)
def test_equals_a_softmax_over_the_block_and_what_is_mixed_beside_it(blocks: int, block: int) -> None:
    length, rows = blocks * block, 2
    q, k, v = (drawn(rows, length, HEADS, WIDTH) for _ in range(3))
    weights = drawn(rows, HEADS, blocks, blocks).detach().softmax(-1).requires_grad_()  # as sorting's: rows add up to 1
    given = [t.transpose(1, 2) for t in (q, k, v)]
    got = beside.attend_earlier(*given, weights.tril(-1), block)
    want = plainly(*(t.double() for t in given), weights.tril(-1).double(), block)
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-4)
    upstream = torch.randn(got.shape, generator=torch.Generator().manual_seed(1))
    for mine, theirs in zip(
        torch.autograd.grad(got, (q, k, v, weights), upstream),
        torch.autograd.grad(want, (q, k, v, weights), upstream.double()),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=1e-4)


def test_operators_are_what_pytorch_asks_of_them() -> None:
    inputs = [drawn(1, 2, 12, 8).detach() for _ in range(5)]
    torch.library.opcheck(torch.ops.formers.attend_beside.default, (*inputs, 4))
    out, lse = torch.ops.formers.attend_beside(*inputs, 4)
    torch.library.opcheck(torch.ops.formers.attend_beside_backward.default, (out, out, lse, *inputs, 4))


@pytest.mark.parametrize("length", [64, 70, 33])
def test_a_decoder_gives_the_same_with_and_without_it(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = SinkhornAttention(2, block=8, iterations=3).build(Site(dim=32, causal=True)).train()
    x = drawn(2, length, 32)
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))

    def run() -> tuple[Tensor, ...]:
        y = layer(x, Call(Places.run(0, length), remember=False)).y
        return y, *torch.autograd.grad(y, (x, *layer.parameters()), upstream)

    fast = run()
    monkeypatch.setattr(sinkhorn_causal, "refuses_earlier", lambda q: "not today")
    for got, want in zip(fast, run(), strict=True):
        torch.testing.assert_close(got, want, atol=5e-5, rtol=1e-4)
