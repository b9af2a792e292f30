"""Each position against its paper's formula, written out pair by pair, and against published code where there is any."""

import math

import pytest
import torch
from torch import Tensor

from formers import ALiBi, Axial, DistanceAware, Rotary, Shaw, Sinusoidal, T5Buckets, TransformerXL
from formers.attention.backends import attend
from formers.attention.pattern import Causal, Everything
from formers.attention.request import Request
from formers.call import Call
from formers.errors import FormersError
from formers.places import Memo, Places, Spots
from formers.position.core import Position, PositionLayer
from formers.position.distance import alibi_slopes
from formers.spec import Site

H, D, M, T = 3, 8, 24, 11


def run(position: Position, causal: bool = True) -> tuple[PositionLayer, Tensor, Tensor, Tensor, Tensor]:
    """The layer, q, k, v (H, T, D) and what attention gives (H, T, D)."""
    torch.manual_seed(0)
    layer = position.build(Site(dim=M, causal=causal, heads=H, head_dim=D)).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    q, k, v = (torch.randn(1, H, T, D, dtype=torch.float64) for _ in range(3))
    at, memo = Places.run(0, T), Memo()
    pattern = Causal() if causal else Everything()
    turned = layer.turn(q, at, memo), layer.turn(k, at, memo)
    out = attend(Request(*turned, v, at, at, pattern, layer, D**-0.5, 0.0, memo))
    return layer, q[0], k[0], v[0], out[0]


def softmax_rows(scores: Tensor, causal: bool) -> Tensor:
    hidden = torch.ones(T, T, dtype=torch.bool).triu(1) if causal else torch.zeros(T, T, dtype=torch.bool)
    return scores.masked_fill(hidden, float("-inf")).softmax(-1)


@pytest.mark.parametrize("causal", [True, False])
def test_shaw(causal: bool) -> None:
    layer, q, k, v, out = run(Shaw(3), causal)
    a_k, a_v = layer.keys.weight, layer.vectors.weight
    scores, wanted = torch.zeros(H, T, T, dtype=torch.float64), torch.zeros_like(q)
    for h in range(H):
        for i in range(T):
            for j in range(T):
                scores[h, i, j] = q[h, i] @ (k[h, j] + a_k[max(-3, min(3, j - i)) + 3]) / math.sqrt(D)
    weights = softmax_rows(scores, causal)
    for h in range(H):
        for i in range(T):
            for j in range(T):
                wanted[h, i] += weights[h, i, j] * (v[h, j] + a_v[max(-3, min(3, j - i)) + 3])
    torch.testing.assert_close(out, wanted)


@pytest.mark.parametrize("causal", [True, False])
def test_transformer_xl(causal: bool) -> None:
    layer, q, k, v, out = run(TransformerXL(), causal)
    scores = torch.zeros(H, T, T, dtype=torch.float64)
    rate = 10_000 ** (-torch.arange(0, M, 2, dtype=torch.float64) / M)
    for i in range(T):
        for j in range(T):
            r = torch.cat([((i - j) * rate).sin(), ((i - j) * rate).cos()])
            r = (layer.r_proj.weight @ r).view(H, D)
            for h in range(H):
                terms = q[h, i] @ k[h, j] + q[h, i] @ r[h] + layer.u[h] @ k[h, j] + layer.v[h] @ r[h]
                scores[h, i, j] = terms / math.sqrt(D)
    torch.testing.assert_close(out, softmax_rows(scores, causal) @ v)


@pytest.mark.parametrize("causal", [True, False])
def test_distance_aware(causal: bool) -> None:
    layer, q, k, v, out = run(DistanceAware(), causal)
    far = (torch.arange(T)[:, None] - torch.arange(T)).abs()
    w, b = layer.w[:, None, None], layer.v[:, None, None]
    factor = (1 + b.exp()) / (1 + (b - w * far).exp())
    scores = (q @ k.mT).relu() * factor / math.sqrt(D)
    torch.testing.assert_close(out, softmax_rows(scores, causal) @ v)


@pytest.mark.parametrize("w", [-3000.0, 3000.0])
def test_distance_aware_has_a_finite_gradient_where_its_exponentials_overflow(w: float) -> None:
    layer = DistanceAware().build(Site(dim=M, heads=H, head_dim=D)).double()
    with torch.no_grad():
        layer.v.fill_(30.0)
        layer.w.fill_(w)
    q, at = torch.randn(1, H, 1, T, D, dtype=torch.float64), Places.run(0, T)
    q_at = Spots.of(at, lambda t: t[:, None, None, :, None])
    k_at = Spots.of(at, lambda t: t[:, None, None, None, :])
    scores = layer.scores(q, q, q_at, k_at, torch.arange(H)[:, None, None, None])
    gradients = torch.autograd.grad(scores.sum(), list(layer.parameters()))
    assert scores.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_rotary_is_a_product_of_complex_numbers() -> None:
    for pairing in ("adjacent", "halves"):
        _, q, k, v, out = run(Rotary(pairing=pairing))
        rate = 10_000.0 ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)
        turn = torch.polar(torch.ones(T, D // 2, dtype=torch.float64), torch.arange(T)[:, None] * rate)

        def turned(x: Tensor, pairing: str = pairing, turn: Tensor = turn) -> Tensor:
            pairs = x.unflatten(-1, (-1, 2)) if pairing == "adjacent" else torch.stack(x.chunk(2, -1), -1)
            return torch.view_as_complex(pairs.contiguous()) * turn

        scores = (turned(q)[:, :, None] * turned(k)[:, None].conj()).sum(-1).real / math.sqrt(D)
        torch.testing.assert_close(out, softmax_rows(scores, True) @ v)


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    layer = Rotary().build(Site(dim=M, heads=H, head_dim=D))
    q, k = torch.randn(1, H, T, D, dtype=torch.float64), torch.randn(1, H, T, D, dtype=torch.float64)
    near, far = (layer.turn(q, Places.run(s, T), Memo()) @ layer.turn(k, Places.run(s, T), Memo()).mT for s in (0, 37))
    torch.testing.assert_close(near, far)


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 8, 12, 16, 20, 71])
def test_alibi_slopes_are_those_of_published_code(heads: int) -> None:
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    table = bloom.build_alibi_tensor(torch.ones(1, 5), heads, torch.float32).view(heads, 5)
    torch.testing.assert_close(torch.tensor(alibi_slopes(heads)), table[:, 1])


def test_alibi_is_zero_at_the_query_and_falls_behind_it() -> None:
    _, q, k, v, out = run(ALiBi())
    distance = torch.arange(T)[:, None] - torch.arange(T)
    slopes = torch.tensor([2**-4, 2**-8, 2**-2], dtype=torch.float64)
    scores = q @ k.mT / math.sqrt(D) - slopes[:, None, None] * distance
    torch.testing.assert_close(out, softmax_rows(scores, True) @ v)


@pytest.mark.parametrize("causal", [True, False])
def test_t5_buckets_are_those_of_published_code(causal: bool) -> None:
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5").T5Attention
    layer = T5Buckets(32, 128).build(Site(dim=M, causal=causal, heads=H, head_dim=D))
    distance = torch.arange(-300, 301)
    theirs = t5._relative_position_bucket(-distance, bidirectional=not causal, num_buckets=32, max_distance=128)
    torch.testing.assert_close(layer.bucket(distance), theirs)


def test_sinusoids_follow_the_formula_and_turn_with_the_position() -> None:
    table = Sinusoidal().build(Site(dim=M)).vectors(Places.run(0, 50), torch.float64)[0]
    for p in (0, 1, 49):
        for i in range(M // 2):
            angle = p / 10_000 ** (2 * i / M)
            assert table[p, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-12)
            assert table[p, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-12)
    halves = Sinusoidal("halves").build(Site(dim=M)).vectors(Places.run(0, 50), torch.float64)[0]
    torch.testing.assert_close(halves, torch.cat([table[:, 0::2], table[:, 1::2]], -1))


def test_axial_rows_are_their_digits() -> None:
    layer = Axial((3, 4), (10, 14)).build(Site(dim=M))
    table = layer.vectors(Places.run(0, 12), torch.float32)[0]
    for p in range(12):
        torch.testing.assert_close(table[p], torch.cat([layer.tables[0].weight[p // 4], layer.tables[1].weight[p % 4]]))


def test_a_text_past_an_axial_shape_is_told_to_take_a_larger_one() -> None:
    layer = Axial((3, 4), (10, M - 10)).build(Site(dim=M))
    with pytest.raises(
        FormersError, match=r"has 12 positions .* a shape whose product is larger than that of \(3, 4\)"
    ):
        layer(torch.zeros(1, 13, M), Call(Places.run(0, 13)))
