"""The sparse feed-forward is its formula, whatever it leaves out; it chooses as it says, and says what it chose."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers import ConfigError, Decoder
from formers.block import Block
from formers.call import Call
from formers.places import Places
from formers.sparse import SparseFF, active
from formers.sparse.choosing import sample
from formers.spec import Site

DIM, HIDDEN, BLOCK, RANK = 10, 24, 6, 5
SITE = Site(DIM, path=(3, 1))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=["chosen alone", "all"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of computing, whatever would be faster."""
    monkeypatch.setattr("formers.sparse.feedforward.pays", lambda x, weights: request.param == "chosen alone")
    return request.param


def build(**fields: Any) -> nn.Module:
    layer = SparseFF(HIDDEN, BLOCK, RANK, **fields).build(SITE).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def some(batch: int = 2, length: int = 7) -> Tensor:
    return torch.randn(batch, length, DIM, dtype=torch.float64, requires_grad=True)


def call(length: int = 7, seed: int = 0, **fields: Any) -> Call:
    return Call(Places.run(0, length), seed=seed, **fields)


def formula(layer: nn.Module, x: Tensor, picked: Tensor, kind: str) -> Tensor:
    """All of it written out over all units; kind: "hard", "soft" or "evaluation"."""
    spec = layer.spec
    logits = layer.controller_out(layer.controller_in(x)).unflatten(-1, (HIDDEN // BLOCK, BLOCK))
    p = logits.softmax(-1)
    q = F.one_hot(picked.long(), BLOCK).double()
    mask = {"hard": q + p - p.detach(), "soft": p, "evaluation": q}[kind]
    units = layer.up(x).unflatten(-1, (-1, BLOCK))
    made = F.relu(units * mask) if spec.mask == "before" else F.relu(units) * mask
    if spec.weighted and kind != "soft":
        made = made * (p if kind == "evaluation" else p.detach())
    return layer.down(made.flatten(-2))


def slopes(y: Tensor, layer: nn.Module, x: Tensor) -> list[Tensor | None]:
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return list(torch.autograd.grad((y * weights).sum(), [x, *layer.parameters()], allow_unused=True))


@pytest.mark.parametrize("mask", ["before", "after"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["hard", "soft", "evaluation"])
def test_values_and_gradients_are_those_of_the_formula(way: str, mask: str, weighted: bool, kind: str) -> None:
    layer, x = build(mask=mask, weighted=weighted, hard=float(kind == "hard")), some()
    layer.train(kind != "evaluation")
    out = layer(x, call())
    expected = formula(layer, x, out.choices, kind)
    torch.testing.assert_close(out.y, expected, atol=1e-12, rtol=1e-12)
    found, wanted = slopes(out.y, layer, x), slopes(expected, layer, x)
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_the_controller_learns_in_hard_and_in_soft_passes(way: str, kind: str) -> None:
    layer = build(hard=float(kind == "hard"))
    layer(some(), call()).y.square().sum().backward()
    assert all(parameter.grad.any() for parameter in layer.parameters())


def test_behind_the_relu_units_that_were_not_chosen_are_heard() -> None:
    found = []
    for mask in ("before", "after"):
        torch.manual_seed(0)
        layer, x = build(mask=mask, hard=1.0), some()
        out = layer(x, call())
        (slope,) = torch.autograd.grad(out.y.sum(), layer.controller_out.bias)
        found.append(slope)
    assert not torch.equal(*found)


@pytest.mark.parametrize("batch", [1, 7])
def test_gathered_units_are_the_masked_ones(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x, found = build().float().eval(), some(batch, 1).float(), []
    monkeypatch.setattr(active, "refuses", lambda x, weights: "not here")
    for alone in (True, False):
        monkeypatch.setattr("formers.sparse.feedforward.pays", lambda x, weights, alone=alone: alone)
        found.append(layer(x, call(1)).y)
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


def test_few_tokens_read_the_chosen_units_alone() -> None:
    weights, x = SparseFF(128, 64, 2).build(SITE).double()._weights, some(1, 1)
    assert active.pays(x.expand(2, 1, -1), weights) and not active.pays(x.expand(3, 1, -1), weights)


def test_a_hard_pass_without_temperature_is_an_evaluation(way: str) -> None:
    layer, x = build(temperature=0.0, hard=1.0), some()
    trained = layer(x, call()).y
    torch.testing.assert_close(layer.eval()(x, call()).y, trained, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_units_are_drawn_from_the_softmax(temperature: float) -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0, 0.5], [3.0, -200.0, 0.0, 0.0, 0.0]])
    draws = sample(logits.expand(40000, -1, -1), temperature, torch.Generator().manual_seed(1))
    frequencies = F.one_hot(draws.long(), 5).float().mean(0)
    torch.testing.assert_close(frequencies, (logits / temperature).softmax(-1), atol=0.01, rtol=0)
    assert not (draws[:, 1] == 1).any()


def test_drawing_is_argmax_with_gumbel_noise() -> None:
    """The published way: the largest of log p + T g."""
    logits, count = torch.tensor([0.3, -0.2, 0.1, 0.0]), 40000
    noise = -(-torch.rand(count, 4, generator=torch.Generator().manual_seed(2)).clamp(1e-6, 1 - 1e-6).log()).log()
    published = (logits.log_softmax(-1) + 0.1 * noise).argmax(-1)
    ours = sample(logits.expand(count, -1), 0.1, torch.Generator().manual_seed(3))
    one, other = (torch.bincount(draws.long(), minlength=4) / count for draws in (published, ours))
    torch.testing.assert_close(one, other, atol=0.01, rtol=0)


def test_the_coin_falls_hard_as_often_as_asked_and_by_the_seed() -> None:
    layer, x = build(hard=0.3, temperature=0.0), some(1, 7)
    picked = layer(x, call()).choices
    hard = formula(layer, x, picked, "hard")
    fell = [bool((layer(x, call(seed=seed)).y - hard).abs().max() < 1e-9) for seed in range(300)]
    assert 60 < sum(fell) < 120
    assert fell[:20] == [bool((layer(x, call(seed=seed)).y - hard).abs().max() < 1e-9) for seed in range(20)]


def test_layers_and_chunks_throw_coins_of_their_own() -> None:
    layer, x = build(hard=0.5, temperature=0.0, chunk=1), some(1, 40)
    picked = torch.cat(layer(x, call(40)).choices, 1)
    hard, soft = (formula(layer, x, picked, kind) for kind in ("hard", "soft"))
    fell = []
    for path in ((3, 1), (3, 2)):
        layer.path = path
        y = layer(x, call(40)).y
        is_hard = (y - hard).abs().amax((0, 2)) < 1e-9
        torch.testing.assert_close(y, torch.where(is_hard[:, None], hard, soft), atol=1e-9, rtol=0)
        fell.append(is_hard)
    assert 5 < int(fell[0].sum()) < 35 and not torch.equal(*fell)


def test_draws_follow_from_the_seed_and_leave_torchs_generator_alone() -> None:
    layer, x = build(temperature=1.0), some()
    before = torch.get_rng_state()
    first, again, other = (layer(x, call(seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(first.y, again.y, rtol=0, atol=0)
    assert torch.equal(first.choices, again.choices) and not torch.equal(first.choices, other.choices)
    assert layer.eval()(x, call(seed=1)).choices.equal(layer(x, call(seed=2)).choices)


@pytest.mark.parametrize(
    ("block", "dtype"), [(2, torch.uint8), (256, torch.uint8), (257, torch.int16), (1 << 16, torch.int32)]
)
def test_choices_are_of_the_smallest_type(block: int, dtype: torch.dtype) -> None:
    layer = SparseFF(2 * block, block, 1).build(Site(2))
    for training in (True, False):
        chosen = layer.train(training)(torch.randn(2, 3, 2), call(3)).choices
        assert chosen.dtype == dtype and chosen.shape == (2, 3, 2)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("chunk", [None, 3])
def test_choices_handed_in_are_obeyed(way: str, training: bool, chunk: int | None) -> None:
    layer, x = build(chunk=chunk, hard=1.0).train(training), some()
    given = torch.randint(BLOCK, (2, 7, HIDDEN // BLOCK), dtype=torch.uint8)
    handed = given if chunk is None else given.split(chunk, 1)
    out = layer(x, call(), choices=handed)
    torch.testing.assert_close(out.choices, handed)
    torch.testing.assert_close(out.y, formula(layer, x, given, "hard" if training else "evaluation"))


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_chunks_are_the_whole(way: str, chunk: int) -> None:
    """Softly, since the whole throws one coin and has one series of draws."""
    torch.manual_seed(1)
    whole = build(hard=0.0)
    cut, x = SparseFF(HIDDEN, BLOCK, RANK, hard=0.0, chunk=chunk).build(SITE).double(), some()
    cut.load_state_dict(whole.state_dict())
    for training in (True, False):
        out, expected = (layer.train(training)(x, call()) for layer in (cut, whole))
        torch.testing.assert_close(out.y, expected.y, atol=1e-12, rtol=1e-12)
        assert [chosen.shape[1] for chosen in out.choices] == [len(rows) for rows in torch.arange(7).split(chunk)]
        if not training:
            torch.testing.assert_close(torch.cat(out.choices, 1), expected.choices)
        found, wanted = slopes(out.y, cut, x), slopes(expected.y, whole, x)
        torch.testing.assert_close(
            [g for g in found if g is not None], [g for g in wanted if g is not None], atol=1e-12, rtol=1e-12
        )


def test_a_chunk_that_is_computed_again_does_not_choose_again(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x, seen = build(chunk=3, hard=1.0), some(), []
    monkeypatch.setattr("formers.sparse.feedforward.sample", lambda *given: seen.append(None) or sample(*given))
    y = layer(x, call()).y
    with torch.no_grad():
        layer.controller_out.bias.add_(torch.randn(HIDDEN))  # as if rounding had moved the logits
    y.sum().backward()
    assert len(seen) == 3


def test_dropout_drops_features_of_all_tokens_alike() -> None:
    layer, x = build(dropout=0.5, hard=0.0), some()
    full = build(hard=0.0)
    full.load_state_dict(layer.state_dict())
    ratio = layer(x, call()).y / full(x, call()).y
    torch.testing.assert_close(ratio, ratio[:1, :1].expand_as(ratio))
    assert set(ratio[0, 0].round(decimals=6).tolist()) == {0.0, 2.0}
    torch.testing.assert_close(layer.eval()(x, call()).y, full.eval()(x, call()).y)


@pytest.mark.parametrize("training", [True, False])
def test_under_autocast_choices_are_made_in_full_precision(training: bool) -> None:
    layer, x = build(hard=1.0).float().train(training), some(4, 50).float()
    exact = layer(x, call(50))
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x, call(50))
        assert layer.logits(x.bfloat16()).dtype == torch.float32
    assert torch.equal(out.choices, exact.choices)
    torch.testing.assert_close(out.y.float(), exact.y, atol=0.1, rtol=0.05)


def test_half_precision_parameters_choose_in_fp32() -> None:
    layer, x = build().bfloat16(), some().bfloat16()
    for training in (True, False):
        out = layer.train(training)(x, call())
        assert out.y.dtype == torch.bfloat16 and layer.logits(x).dtype == torch.float32


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden": 25}, r"25 hidden units cannot be cut into blocks of 6.*fix: hidden=24"),
        ({"hidden": 0}, r"0 hidden units cannot be cut.*fix: hidden=6"),
        ({"block": 1}, r"in a block of 1 there is nothing to choose.*fix: block=16"),
        ({"block": 0}, r"in a block of 0 there is nothing to choose"),
        ({"rank": 0}, r"a controller of rank 0 sees nothing of its input.*fix: rank=1"),
        ({"temperature": -0.1}, r"a temperature is at least 0, got -0.1.*fix: temperature=0.1"),
        ({"hard": 1.5}, r"the share of passes with a hard mask lies from 0 to 1, got 1.5.*fix: hard=0.3"),
        ({"dropout": 1.0}, r"a dropout rate is at least 0 and below 1, got 1.0"),
        ({"chunk": 0}, r"chunks of 0 tokens never come to an end"),
        ({"mask": "beside"}, r"'beside' is a str, not"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    spec = SparseFF(**{"hidden": HIDDEN, "block": BLOCK, "rank": RANK} | fields)
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        Decoder("model", 11, DIM, (Block((spec,)),)).build()
