"""Adaptive attention span is its formula, forwards and backwards, and does less the shorter spans are."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from formers import HeadSpans, QuerySpans, RelativeKeys, Rotary, SpanAttention
from formers.attention.oracle import attend_dense
from formers.attention.span_attention import SpanAttentionLayer
from formers.call import Call
from formers.errors import ConfigError
from formers.places import Places, keys, queries
from formers.spec import Site, check
from formers.train.learning import Learner, Lessons

DIM, HEADS, LONGEST = 24, 4, 200
UNEQUAL = [0.0007, 0.1513, 0.4021, 0.9987]  # of 200 tokens: no span stands at a kink of its mask


@pytest.fixture(autouse=True)
def float64() -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def built(causal: bool = True, shares: list[float] | None = None, **fields: Any) -> SpanAttentionLayer:
    torch.manual_seed(0)
    spec = SpanAttention(HEADS, **{"longest": LONGEST, "ramp": 10, **fields})
    layer = spec.build(Site(DIM, causal=causal, path=(3, 1)))
    for name, parameter in layer.named_parameters():
        if not name.startswith("spans.shares"):
            nn.init.normal_(parameter, std=0.3)
    if shares is not None:
        layer.spans.shares.data.copy_(torch.tensor(shares))
    return layer


def formula(layer: SpanAttentionLayer, x: Tensor) -> Tensor:
    """a_ij = m(i - j) e^s_ij / sum_r m(i - r) e^s_ir, written out, with s = q (k + p) / sqrt(D)."""
    spec, length = layer.spec, x.shape[1]
    place = torch.arange(length)
    behind = place[:, None] - place
    spans = (spec.longest * layer.spans(x))[..., None]
    mask = ((spec.ramp + spans - behind.abs()) / spec.ramp).clamp(0, 1) * (behind.abs() < spec.longest)
    if layer.causal:
        mask = mask * (behind >= 0)
    q, k, v = layer.projection.together(x)
    scores = q @ k.mT
    if isinstance(spec.position, RelativeKeys):
        table, furthest = layer.position.table.weight, spec.position.reach - 1
        first = 0 if layer.causal else -furthest
        scores = scores + torch.einsum("bhid,ijd->bhij", q, table[behind.clamp(first, furthest) - first])
    weights = mask * (scores * layer.scale).exp()
    return layer.projection.output(weights / weights.sum(-1, keepdim=True) @ v)


def once(length: int) -> Call:
    return Call(Places.run(0, length), remember=False)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("spans", [HeadSpans(), QuerySpans(0.3)], ids=repr)
@pytest.mark.parametrize(("length", "reach"), [(21, 30), (300, LONGEST), (300, 70)])
def test_outputs_and_gradients_are_the_formula_s(causal: bool, spans: Any, length: int, reach: int) -> None:
    shares = UNEQUAL if isinstance(spans, HeadSpans) else None
    layer = built(causal, shares, spans=spans, position=RelativeKeys(reach))
    x = torch.randn(2, length, DIM, requires_grad=True)
    ours, wanted = layer(x, once(length)).y, formula(layer, x)
    torch.testing.assert_close(ours, wanted)
    upstream = torch.randn_like(ours)
    inputs = [x, *layer.parameters()]
    found = torch.autograd.grad(ours, inputs, upstream)
    torch.testing.assert_close(found, torch.autograd.grad(wanted, inputs, upstream))


@pytest.mark.parametrize("spans", [HeadSpans(), QuerySpans(0.3)], ids=repr)
def test_gradients_are_finite_differences(spans: Any) -> None:
    layer = built(spans=spans, longest=12, ramp=5, position=RelativeKeys(12))
    if isinstance(spans, HeadSpans):
        layer.spans.shares.data.copy_(torch.tensor([0.013, 0.21, 0.43, 0.97]))
    x, call = torch.randn(1, 9, DIM), once(9)
    names, parameters = zip(*layer.spans.named_parameters(), strict=True)

    def run(x: Tensor, *values: Tensor) -> Tensor:
        given = {f"spans.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(layer, given, (x, call)).y

    leaves = [parameter.detach().clone().requires_grad_() for parameter in parameters]
    assert torch.autograd.gradcheck(run, (x.requires_grad_(), *leaves))


def test_a_span_of_nothing_still_gets_a_gradient_from_its_ramp() -> None:
    layer = built(shares=[0.0] * HEADS)
    layer(torch.randn(2, 30, DIM), once(30)).y.square().sum().backward()
    assert (layer.spans.shares.grad != 0).all()


def test_a_key_at_the_very_end_of_the_ramp_makes_no_gradient_undefined() -> None:
    """There m is 0, and a little further in next to 0: its logarithm must not be taken, or not be the gradient's way."""
    for share in (2 / LONGEST, 2 / LONGEST + 1e-12):
        layer = built(shares=[share] * HEADS)
        x = torch.randn(2, 30, DIM, requires_grad=True)
        gradients = torch.autograd.grad(layer(x, once(30)).y.sum(), [x, *layer.parameters()])
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_padded_query_that_sees_nothing_makes_no_gradient_undefined() -> None:
    layer = built(shares=[0.0] * HEADS, ramp=1)
    real = torch.tensor([[True] * 5 + [False] * 4])
    at = Places(torch.tensor([[0, 1, 2, 3, 4, 9, 9, 9, 9]]), real)
    out = layer(torch.randn(1, 9, DIM), Call(at, remember=False)).y
    assert out.isfinite().all()
    out[real].sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_the_longest_span_is_ordinary_attention() -> None:
    layer = built(shares=[1.0] * HEADS, position=Rotary())
    x, at = torch.randn(2, 300, DIM), Places.run(0, 300)
    out = layer(x, once(300)).y
    call = once(300)
    q, k, v = layer.projection.together(x)
    q, k = (layer.position.turn(t, at, call.memo) for t in (q, k))
    mask = layer.pattern.visible(queries(at), keys(at), torch.arange(HEADS)[:, None, None])
    assert mask.sum(-1).max() == LONGEST
    torch.testing.assert_close(out, layer.projection.output(attend_dense(q, k, v, mask)))


def test_the_mask_is_the_released_code_s() -> None:
    """facebookresearch/adaptive-span: a template of distances, over the weights of ordinary attention, made to sum to 1."""
    layer = built(shares=UNEQUAL)
    x = torch.randn(1, LONGEST, DIM)
    q, k, v = layer.projection.together(x)
    weights = (q[:, :, -1:] @ k.mT * layer.scale).softmax(-1)
    template = torch.linspace(1 - LONGEST, 0, LONGEST)
    mask = ((template + layer.spans.shares[:, None] * LONGEST) / layer.spec.ramp + 1).clamp(0, 1)
    weights = weights * mask[None, :, None]
    expected = layer.projection.output(weights / weights.sum(-1, keepdim=True) @ v)
    torch.testing.assert_close(layer(x, once(LONGEST)).y[:, -1:], expected)


def test_heads_do_work_within_their_own_reach_and_no_further() -> None:
    x, done = torch.randn(2, 700, DIM), []
    for shares in (UNEQUAL, [0.0007] * HEADS, [0.99] * HEADS):
        layer = built(shares=shares).train()
        (told,) = layer(x, once(700)).records["spans 3.1"]
        torch.testing.assert_close(told[:, 0] / told[:, 1], LONGEST * torch.tensor(shares))
        assert (told[:, 1] == 2 * 700).all() and (told[:, 3] == told[0, 3]).all()
        done.append(told[:, 2].tolist())
    unequal, short, full = done
    assert unequal[0] == unequal[1] < unequal[2] < unequal[3]
    assert short == [unequal[0]] * HEADS and full == [unequal[3]] * HEADS
    assert short[0] < 0.4 * full[0]
    assert full[0] == told[0, 3]


def test_a_dynamic_span_narrows_the_call_that_it_is_of() -> None:
    layer, x = built(spans=QuerySpans(0.01)), torch.randn(1, 500, DIM)
    layer.spans.linear.weight.data.zero_()
    layer.spans.linear.bias.data.copy_(torch.tensor([0.0, 0.0, 0.0, 9.0]))
    told = layer(x, once(500)).records["spans 3.1"][0]
    assert told[0, 2] == told[2, 2] < told[3, 2] == told[3, 3]
    assert told[0, 0] / told[0, 1] == pytest.approx(2.0)


def test_what_padding_would_look_at_costs_nothing() -> None:
    layer = built(spans=QuerySpans(0.01))
    nn.init.zeros_(layer.spans.linear.bias)
    x, real = torch.randn(2, 300, DIM), torch.ones(2, 300, dtype=torch.bool)
    real[1, 150:] = False
    at = Places(torch.arange(300)[None], real)
    layer.spans.linear.weight.data.fill_(1.0)
    x[1, 150:] = 5.0  # spans of all that there is
    x[real] = 0.0
    (told,) = layer(x, Call(at, remember=False)).records["spans 3.1"]
    assert (told[:, 1] == 450).all() and (told[:, 0] / told[:, 1]).tolist() == pytest.approx([2.0] * HEADS)
    assert (told[:, 2] < 0.6 * told[:, 3]).all()


def test_the_state_keeps_what_spans_reach_and_steps_are_the_pass() -> None:
    layer, x = built(shares=[0.0, 0.1, 0.2, 0.11], position=RelativeKeys(LONGEST)).eval(), torch.randn(1, 300, DIM)
    whole, state, steps = layer(x, once(300)).y, None, []
    for start, stop in [(0, 170), *((t, t + 1) for t in range(170, 180)), (180, 300)]:
        out = layer(x[:, start:stop], Call(Places.run(start, stop - start)), state)
        state = out.state
        steps.append(out.y)
        assert not out.records
    torch.testing.assert_close(torch.cat(steps, 1), whole)
    assert state.places.length == 63  # the furthest reaches 40 + 10, in blocks of 64
    layer.spans.shares.data[2] = 0.99
    assert layer(x, Call(Places.run(0, 300))).state.places.length == LONGEST - 1


def test_a_call_of_padding_alone_forgets_nothing() -> None:
    x, nothing = torch.randn(1, 130, DIM), torch.zeros(1, 3, dtype=torch.bool)
    for spans in (HeadSpans(0.3), QuerySpans(0.3)):
        layer = built(spans=spans).eval()
        before = layer(x[:, :120], Call(Places.run(0, 120))).state
        between = layer(torch.randn(1, 3, DIM), Call(Places(torch.full((1, 3), 120), nothing)), before).state
        after = layer(x[:, 120:], Call(Places.run(120, 10)), between).y
        torch.testing.assert_close(after, layer(x, once(130)).y[:, 120:])


def test_in_training_and_where_content_decides_the_state_keeps_the_longest_span() -> None:
    x = torch.randn(1, 300, DIM)
    for layer in (built().train(), built(spans=QuerySpans(0.01)).eval()):
        assert layer(x, Call(Places.run(0, 300))).state.places.length == LONGEST - 1


def test_the_penalty_is_the_mean_span_of_real_tokens() -> None:
    layer = built(shares=UNEQUAL, penalty=0.5)
    loss = layer(torch.randn(1, 5, DIM), once(5)).losses["span"]
    assert loss.item() == pytest.approx(0.5 * LONGEST * sum(UNEQUAL) / HEADS)
    (gradient,) = torch.autograd.grad(loss, layer.spans.shares)
    torch.testing.assert_close(gradient, torch.full((HEADS,), 0.5 * LONGEST / HEADS))
    dynamic, x = built(spans=QuerySpans(), penalty=0.5), torch.randn(2, 6, DIM)
    real = torch.rand(2, 6) < 0.6
    told = dynamic(x, Call(Places(torch.arange(6)[None], real))).losses["span"]
    spans = LONGEST * dynamic.spans(x).transpose(1, 2)
    torch.testing.assert_close(told, 0.5 * spans[real].mean())


def test_spans_begin_where_they_are_told_to() -> None:
    torch.manual_seed(0)
    site, x = Site(DIM, causal=True), torch.randn(1, 3, DIM)
    assert SpanAttention(2, 50, spans=HeadSpans(0.25)).build(site).spans(x).flatten().tolist() == [0.25, 0.25]
    dynamic = SpanAttention(2, 50, spans=QuerySpans(0.25)).build(site).spans
    nn.init.zeros_(dynamic.linear.weight)
    nn.init.zeros_(dynamic.linear.bias)
    torch.testing.assert_close(dynamic(x), torch.full((1, 2, 3), 0.25))


def test_a_lesson_brings_shares_back_into_bounds_and_no_call_does() -> None:
    layer = built(shares=[-0.1, 0.4, 1.2, 1.0]).train()
    out = layer(torch.randn(1, 8, DIM), once(8))
    assert layer.spans.shares.tolist() == [-0.1, 0.4, 1.2, 1.0]
    told = out.records["spans 3.1"][0]
    assert (told[:, 0] / told[:, 1]).tolist() == pytest.approx([0, 0.4 * LONGEST, LONGEST, LONGEST])
    assert isinstance(layer.spans, Learner)
    lessons = Lessons(layer)
    lessons.note(out.records)
    lessons.teach()
    assert layer.spans.shares.tolist() == [0.0, 0.4, 1.0, 1.0]


@pytest.mark.parametrize(
    ("fields", "fault", "mend"),
    [
        ({"longest": 0}, "spans of at most 0 tokens show nothing", "longest=8192"),
        ({"ramp": 0}, "a ramp of 0 tokens gives spans no gradient", "ramp=32"),
        ({"penalty": -1.0}, "would reward long spans", "penalty=2e-6"),
        ({"spans": HeadSpans(1.5)}, "from 0 to 1, not 1.5", "begin=0.0"),
        ({"spans": QuerySpans(1.0)}, "cannot begin at 1.0", "begin=0.1"),
        ({"position": RelativeKeys(0)}, "a table of 0 distances", "reach=64"),
        ({"heads": 5}, "does not split into 5 heads", "heads=4"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_wrong_is_told_with_a_mend(fields: dict[str, Any], fault: str, mend: str) -> None:
    spec = SpanAttention(HEADS, LONGEST).replace(**fields)
    with pytest.raises(ConfigError) as error:
        check(spec, Site(DIM, causal=True), "spans")
    assert fault in str(error.value) and mend in str(error.value)


def test_positions_that_differ_by_head_are_refused() -> None:
    from formers import ALiBi

    with pytest.raises(ConfigError, match=r"ALiBi\(\) is not cut into groups"):
        check(SpanAttention(HEADS, LONGEST, position=ALiBi()), Site(DIM, causal=True), "spans")
