"""Attention by features: the formula that it stands for, its pieces and their state, its precision, and what it refuses."""

import pytest
import torch
from torch import Tensor, nn

from formers import (
    MLP,
    ALiBi,
    ArcCosine,
    Attention,
    Block,
    Causal,
    ConfigError,
    Decoder,
    Hyperbolic,
    KernelAttention,
    KernelCrossAttention,
    Positive,
    RandomFourier,
    ReLUKernel,
    SparseQueries,
    Window,
    stack,
)
from formers.attention.kernel import FeatureMap, Trigonometric, sums, whole
from formers.attention.kernel.features import FeatureLayer
from formers.call import Call, Encoded
from formers.places import Places
from formers.spec import Site
from formers.state import tensors

pytestmark = pytest.mark.usefixtures("float64")
MAPS = {
    "positive": Positive(24),
    "hyperbolic": Hyperbolic(24),
    "relu": ReLUKernel(24),
    "fourier": RandomFourier(24, pool=2),
    "arc-cosine": ArcCosine(24, pool=2),
}


def layer(features: FeatureMap, *, causal: bool = True, gate: bool = False, heads: int = 2, dim: int = 8) -> nn.Module:
    built = KernelAttention(heads, features=features, gate=gate).build(Site(dim, causal=causal, path=(0, 0))).double()
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.5)
    return built.eval()


def run(length: int, real: Tensor | None = None) -> Call:
    if real is None:
        return Call(Places.run(0, length))
    return Call(Places((real.cumsum(1) - 1).clamp(min=0), real))


def by_formula(built: nn.Module, x: Tensor, *, causal: bool, real: Tensor | None = None) -> Tensor:
    """All weights phi(q) . phi(k) at once, (B, H, T, T), with gates multiplied out."""
    call = run(x.shape[1], real)
    q, k, v = built.projection.together(x)
    directions = built.features.directions(call)
    asked, told = built.features(q, directions), built.features(k, directions)
    weights = asked.phi @ told.phi.mT
    came = torch.ones_like(weights)
    if told.peak is not None:
        came = came * told.peak.exp()[:, :, None]
    if real is not None:
        came = came * real[:, None, None]
    if built.gate is not None:
        kept = built.gate(x).transpose(1, 2).sigmoid()
        for t in range(x.shape[1]):
            for s in range(t + 1):
                between = kept[..., s + 1 : t + 1]
                if real is not None:
                    between = torch.where(real[:, None, s + 1 : t + 1], between, 1)
                came[..., t, s] *= (1 - kept[..., s]) * between.prod(-1)
    weights, came = (w.tril() if causal else w for w in (weights * came, came))
    total = weights.sum(-1, keepdim=True)
    if built.features.floor:
        total = torch.maximum(total, built.features.floor * came.sum(-1, keepdim=True))
    return built.projection.output(weights / total.masked_fill(total == 0, 1) @ v)


@pytest.mark.parametrize("gate", [False, True], ids=["", "gated"])
@pytest.mark.parametrize("name", MAPS)
def test_causal_sums_are_the_masked_formula(name: str, gate: bool) -> None:
    built, x = layer(MAPS[name], gate=gate), torch.randn(3, 150, 8)
    real = torch.rand(3, 150) < 0.8
    real[1] = True
    for mask in (None, real):
        y, wanted = built(x, run(150, mask)).y, by_formula(built, x, causal=True, real=mask)
        kept = torch.ones_like(real) if mask is None else mask
        torch.testing.assert_close(y[kept], wanted[kept])


@pytest.mark.parametrize("name", MAPS)
def test_two_sided_sums_are_the_formula(name: str) -> None:
    built, x = layer(MAPS[name], causal=False), torch.randn(2, 70, 8)
    real = torch.rand(2, 70) < 0.7
    for mask in (None, real):
        torch.testing.assert_close(built(x, run(70, mask)).y, by_formula(built, x, causal=False, real=mask))


@pytest.mark.parametrize("gate", [False, True], ids=["", "gated"])
@pytest.mark.parametrize("name", MAPS)
def test_gradients_of_many_pieces_are_those_of_the_formula(
    name: str, gate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sums, "ROOM", 1)  # pieces of one chunk
    monkeypatch.setattr(sums, "CHUNK", 8)
    built, x = layer(MAPS[name], gate=gate), torch.randn(2, 45, 8, requires_grad=True)
    wanted = [x, *built.parameters()]
    over = torch.randn(2, 45, 8)
    found = torch.autograd.grad((built(x, run(45)).y * over).sum(), wanted)
    torch.testing.assert_close(found, torch.autograd.grad((by_formula(built, x, causal=True) * over).sum(), wanted))


def test_gradients_of_both_directions_are_those_of_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "CACHED", 1)  # blocks of one row
    monkeypatch.setattr(whole, "TOKENS", 8)
    for features in MAPS.values():
        built, x = layer(features, causal=False), torch.randn(2, 29, 8, requires_grad=True)
        wanted, over = [x, *built.parameters()], torch.randn(2, 29, 8)
        found = torch.autograd.grad((built(x, run(29)).y * over).sum(), wanted)
        torch.testing.assert_close(
            found, torch.autograd.grad((by_formula(built, x, causal=False) * over).sum(), wanted)
        )


@pytest.mark.parametrize("keys", [True, False], ids=["keys", "queries"])
def test_the_way_back_by_hand_is_that_of_autograd(keys: bool) -> None:
    built = layer(Positive(24)).features
    x, directions = torch.randn(2, 2, 9, 4), built.directions(run(9))
    by_phi, by_peak = torch.randn(2, 2, 9, 24), torch.randn(2, 2, 9) if keys else None
    made, back = built.with_way_back(x, directions, (True, True))
    wanted, way = FeatureLayer.with_way_back(built, x, directions, (True, True))
    torch.testing.assert_close(tuple(made), tuple(wanted))
    torch.testing.assert_close(back(by_phi.clone(), by_peak), way(by_phi, by_peak))


@pytest.mark.parametrize("sizes", [[1] * 170, [64, 64, 42], [3, 100, 1, 66], [169, 1]], ids=str)
@pytest.mark.parametrize("gate", [False, True], ids=["", "gated"])
def test_steps_chunks_and_one_pass_agree_and_the_state_does_not_grow(sizes: list[int], gate: bool) -> None:
    for features in (Positive(10), RandomFourier(10, pool=1)):
        built, x = layer(features, gate=gate), torch.randn(2, 170, 8)
        whole, state, parts, start = built(x, run(170)), None, [], 0
        for piece in x.split(sizes, 1):
            out = built(piece, Call(Places.run(start, piece.shape[1])), state)
            state, start = out.state, start + piece.shape[1]
            parts.append(out.y)
        torch.testing.assert_close(torch.cat(parts, 1), whole.y)
        torch.testing.assert_close(tuple(state), tuple(whole.state))
        first = built(x[:, :1], run(1)).state
        assert [t.shape for t in tensors(state)] == [t.shape for t in tensors(first)]


@pytest.mark.parametrize(
    "features", [Positive(4096), Hyperbolic(4096), Trigonometric(4096)], ids=lambda f: type(f).__name__
)
@pytest.mark.parametrize("causal", [True, False])
def test_many_features_are_softmax(features: FeatureMap, causal: bool) -> None:
    built, x = layer(features, causal=causal), torch.randn(1, 40, 8) / 4  # louder ones need more features
    exact = Attention(2).build(Site(8, causal=causal)).double()
    exact.load_state_dict({name: value for name, value in built.state_dict().items() if name.startswith("projection")})
    few = layer(features.replace(features=16), causal=causal)
    few.projection.load_state_dict(built.projection.state_dict())
    wanted = exact(x, run(40)).y
    error, rough = ((one(x, run(40)).y - wanted).abs().mean() / wanted.abs().mean() for one in (built, few))
    assert error < 0.1
    assert error < 0.5 * rough


def test_many_random_features_are_softmax_of_unit_vectors() -> None:
    """exp(q . k) is the Gaussian kernel of unit vectors up to a constant; directions by N(0, 1 / sigma^2)."""
    sigma, x = 1.5, nn.functional.normalize(torch.randn(2, 1, 2, 30, 8), dim=-1)
    built = RandomFourier(20_000, pool=1).build(Site(16, heads=2, head_dim=8)).double().eval()
    nn.init.constant_(built.sharpness, 1 / sigma)
    directions = built.directions(run(1))
    q, k = (built(7.0 * side, directions).phi for side in x)
    wanted = ((x[0] @ x[1].mT - 1) / sigma**2).exp()
    torch.testing.assert_close(q @ k.mT, wanted, atol=0.05, rtol=0)


def test_the_arc_cosine_kernel_goes_by_the_angle() -> None:
    x = nn.functional.normalize(torch.randn(2, 1, 2, 30, 8), dim=-1)
    built = ArcCosine(20_000, pool=1).build(Site(16, heads=2, head_dim=8)).double().eval()
    q, k = (built(side, built.directions(run(1))).phi for side in x)
    angle = (x[0] @ x[1].mT).clamp(-1, 1).acos()
    wanted = (angle.sin() + (torch.pi - angle) * angle.cos()) / torch.pi
    torch.testing.assert_close(q @ k.mT, wanted, atol=0.06, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", MAPS)
def test_long_and_loud_inputs_stay_exact_in_low_precision(name: str, dtype: torch.dtype) -> None:
    """Sums of a thousand keys of all lengths, some of scores beyond what 16 bits can hold."""
    built = layer(MAPS[name], dim=32)
    x = torch.randn(1, 1000, 32) * torch.linspace(0.1, 12, 1000)[torch.randperm(1000), None]
    low = layer(MAPS[name], dim=32)
    low.load_state_dict(built.state_dict())
    low, rounded = low.to(dtype), x.to(dtype).requires_grad_()
    y = low(rounded, run(1000)).y
    wanted = built.load_state_dict(low.double().state_dict()) and built(rounded.double(), run(1000)).y
    low.to(dtype)(rounded, run(1000)).y.float().square().mean().backward()
    assert rounded.grad.isfinite().all()
    error = (y.double() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()
    assert y.dtype == dtype
    assert error < (1e-4 if dtype == torch.float32 else 0.15)


def test_a_loud_future_leaves_the_past_as_it_is() -> None:
    """Not even the peaks that exponents are measured from are those of later keys."""
    built, x = layer(Positive(16)).float(), torch.randn(1, 50, 8, dtype=torch.float32)
    other = x.clone()
    other[:, 20:] *= 40
    torch.testing.assert_close(built(x, run(50)).y[:, :20], built(other, run(50)).y[:, :20], rtol=0, atol=0)


def test_cross_attention_sums_over_the_source_once() -> None:
    built = KernelCrossAttention(2, features=Positive(16)).build(Site(8, causal=True, encoder=True)).double()
    x, source = torch.randn(2, 9, 8), torch.randn(2, 33, 8)
    real = torch.rand(2, 33) < 0.7
    call = Call(Places.run(0, 9), Encoded(source, run(33, real).at))
    out = built(x, call)
    directions = built.features.directions(call)
    k, v = built.projection.keys_values(source)
    asked, told = built.features(built.projection.queries(x), directions), built.features(k, directions)
    weights = (asked.phi @ told.phi.mT) * told.peak.exp()[:, :, None] * real[:, None, None]
    wanted = built.projection.output(weights / weights.sum(-1, keepdim=True) @ v)
    torch.testing.assert_close(out.y, wanted)
    torch.testing.assert_close(built(x, Call(Places.run(9, 9)), out.state).y, wanted)
    with pytest.raises(ValueError, match="neither an encoder's output nor the state"):
        built(x, Call(Places.run(0, 9)))


def test_memory_is_that_of_inputs_and_one_state_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept for the backward pass: queries, keys, values and sums, and no features of all tokens."""
    monkeypatch.setattr(sums, "ROOM", 1)
    features, length = 128, 1024
    built, x = layer(Positive(features)), torch.randn(1, length, 8, requires_grad=True)
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 8
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        built(x, run(length))
    heads, width = 2, 4
    pieces = length // sums.CHUNK
    most = 8 * length * heads * width + (pieces + 1) * heads * (features + 1) * (width + 2)
    assert sum(kept.values()) < most < length * heads * features


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"pattern": Causal() & Window(4)}, "keys are met as one sum"),
        ({"position": ALiBi()}, "adds to scores, and sums over keys have none"),
        ({"projection": SparseQueries()}, "makes keys of an encoder's output"),
        ({"features": Positive(0)}, "0 features tell keys not apart"),
        ({"features": RandomFourier(9)}, "a direction gives 2 features"),
        ({"features": Positive(redraw=0)}, "after every 0 updates"),
        ({"features": ArcCosine(pool=0)}, "a pool of 0 draws"),
        ({"heads": 3}, "does not split into 3 heads"),
    ],
)
def test_what_sums_cannot_do_is_refused(given: dict[str, object], told: str) -> None:
    attention = KernelAttention(**({"heads": 2} | given))
    with pytest.raises(ConfigError, match=told):
        Decoder("d", 10, 8, stack(Block((attention, MLP(8))), times=1)).build()


def test_a_gate_wants_an_order_and_across_wants_an_encoder() -> None:
    assert any("in no order" in what for what, _ in KernelAttention(2, gate=True).problems(Site(8)))
    assert any("no encoder" in what for what, _ in KernelCrossAttention(2).problems(Site(8, causal=True)))
