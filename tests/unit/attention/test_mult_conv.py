"""Multiplicative and convolutional projections: what they mean, step by step, in ragged rows, in parts, and refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers import (
    LSH,
    MLP,
    Attention,
    Block,
    ConfigError,
    CrossAttention,
    Decoder,
    Dense,
    Reversible,
    SelfLast,
    Untied,
)
from formers.attention import AveragedQK, MultConv, SinkhornAttention, SparseQueries
from formers.attention.mult_conv import MultConvLayer
from formers.attention.oracle import attend_dense
from formers.call import Call
from formers.places import Places
from formers.spec import Site, from_json
from formers.state import select
from formers.tokens import place

DIM, HEADS = 12, 2
VARIANTS = {
    "plain": MultConv(),
    "modules apart from heads": MultConv(3),
    "wide kernels": MultConv(4, length=4, width=5),
    "no time": MultConv(6, length=1),
    "same": MultConv(4, share_qk="same"),
    "unit": MultConv(4, share_qk="unit"),
    "average": MultConv(4, share_qk="average"),
    "fixed": MultConv(4, values="fixed"),
    "original": MultConv(4, values="original"),
    "mult": MultConv(4, output="mult"),
    "conv": MultConv(4, output="conv"),
    "multconv": MultConv(4, output="multconv", values="fixed", share_qk="same"),
}


def awake(built: nn.Module, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.4)
    return built.double()


def layer(projection: MultConv, **fields: Any) -> nn.Module:
    if projection.share_qk in ("unit", "average"):
        fields |= {"position": SelfLast(), "scale": 1.0}
    return awake(Attention(HEADS, projection=projection, **fields).build(Site(DIM, causal=True)))


def inputs(rows: int = 3, length: int = 9) -> Tensor:
    return torch.randn(rows, length, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def convolved(x: Tensor, weight: Tensor, bias: Tensor, modules: int) -> Tensor:
    """(B, T, any) by its definition: torch's convolution of an image that is padded by hand."""
    image = x.unflatten(-1, (modules, -1)).permute(0, 3, 1, 2)
    kl, k = weight.shape[2:]
    y = F.conv2d(F.pad(image, (k // 2, k // 2, kl - 1, 0)), weight, bias)
    return y.permute(0, 2, 3, 1).flatten(2)


def multiplied(x: Tensor, mult: nn.Module) -> Tensor:
    return torch.einsum("bti,si,im->btsm", x, mult.gate, mult.mix).flatten(2) + mult.bias


def plain(projection: MultConv, built: nn.Module, x: Tensor) -> Tensor:
    """The whole layer, by the formulas of the paper's code."""
    p, modules = built.projection, projection.modules or HEADS
    u = multiplied(x, p.mult)
    q = convolved(u, p.q_conv.weight, p.q_conv.bias, modules)
    k = q if p.k_conv is None else convolved(u, p.k_conv.weight, p.k_conv.bias, modules)
    seen = u
    if projection.values == "fixed":
        seen = torch.cat([u.unflatten(-1, (modules, -1)), x.unflatten(-1, (modules, -1))], -1).flatten(-2)
    elif projection.values == "original":
        seen = torch.cat([u, x], -1)
    v = convolved(seen, p.v_conv.weight, p.v_conv.bias, modules)
    if projection.share_qk == "average":
        q = k = (q + k) / 2
    q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))
    if projection.share_qk in ("unit", "average"):
        k = k / (k.square().sum(-1, keepdim=True) + 1e-6 * k.shape[-1]).sqrt()
    length = x.shape[1]
    bias = -1e5 * torch.eye(length) if projection.share_qk in ("unit", "average") else None
    y = attend_dense(q, k, v, torch.ones(length, length).tril().bool(), scale=built.scale, bias=bias)
    y = y.transpose(1, 2).flatten(2)
    y = y if p.out_mult is None else multiplied(y, p.out_mult)
    return y if p.out_conv is None else convolved(y, p.out_conv.weight, p.out_conv.bias, modules)


@pytest.mark.parametrize("name", VARIANTS)
def test_it_is_the_formula(name: str) -> None:
    built, x = layer(VARIANTS[name]), inputs()
    torch.testing.assert_close(built(x, Call(Places.run(0, 9))).y, plain(VARIANTS[name], built, x))


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_are_those_of_the_formula(name: str) -> None:
    built, x = layer(VARIANTS[name]), inputs().requires_grad_()
    leaves, weight = [x, *built.parameters()], inputs(3, 9) + 1
    ours = torch.autograd.grad((built(x, Call(Places.run(0, 9))).y * weight).sum(), leaves)
    wanted = torch.autograd.grad((plain(VARIANTS[name], built, x) * weight).sum(), leaves)
    torch.testing.assert_close(ours, wanted)
    assert all(slope.any() for slope in wanted)


MASK = torch.tensor([[0, 1, 1, 0, 0, 1, 1, 1, 0], [1] * 9, [0, 0, 0, 0, 0, 0, 1, 0, 0]]).bool()


def ragged(mask: Tensor, seen: Tensor | int = 0) -> Call:
    return Call(place(torch.zeros(mask.shape).long(), seen, mask, None))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("cuts", [[9], [1] * 9, [4, 5], [2, 1, 6]], ids=str)
def test_steps_equal_one_pass_and_rows_alone_wherever_padding_stands(name: str, cuts: list[int]) -> None:
    built, x, state, made = layer(VARIANTS[name]), inputs(), None, []
    seen = torch.zeros(3).long()
    for part, mask in zip(x.split(cuts, 1), MASK.split(cuts, 1), strict=True):
        out = built(part, ragged(mask, seen), state)
        made.append(out.y)
        state, seen = out.state, seen + mask.sum(1)
    y = torch.cat(made, 1)
    for row in range(3):
        alone = x[row : row + 1, MASK[row]]
        torch.testing.assert_close(y[row, MASK[row]], plain(VARIANTS[name], built, alone)[0])
    if len(cuts) > 1:  # skipped tokens leave behind what those that were run do
        skipped = built.skip(x[:, : cuts[0]], ragged(MASK[:, : cuts[0]]))
        after = ragged(MASK[:, cuts[0] :], MASK[:, : cuts[0]].sum(1))
        rest = built(x[:, cuts[0] :], after, skipped).y
        torch.testing.assert_close(rest[MASK[:, cuts[0] :]], y[:, cuts[0] :][MASK[:, cuts[0] :]])


def test_a_state_is_a_value_whose_rows_can_be_chosen() -> None:
    built, x = layer(MultConv(4, output="multconv")), inputs()
    state = built(x[:, :4], Call(Places.run(0, 4))).state
    first = built(x[:, 4:5], Call(Places.run(4, 1)), state).y
    built(x[:, 5:9], Call(Places.run(4, 4)), state)
    torch.testing.assert_close(built(x[:, 4:5], Call(Places.run(4, 1)), state).y, first, rtol=0, atol=0)
    rows = torch.tensor([2, 0])
    torch.testing.assert_close(built(x[rows, 4:5], Call(Places.run(4, 1)), select(state, rows)).y, first[rows])


def test_the_past_is_blind_to_the_future() -> None:
    built, x = layer(MultConv(4, output="multconv")), inputs()
    other = x.clone()
    other[:, 5:] = torch.randn(3, 4, DIM, dtype=torch.float64)
    y, changed = (built(t, Call(Places.run(0, 9))).y for t in (x, other))
    torch.testing.assert_close(changed[:, :5], y[:, :5], rtol=0, atol=0)
    assert ((changed - y)[:, 5:].abs().amax(-1) > 1e-6).all()


SHARED = ["plain", "same", "unit", "average", "fixed", "mult", "wide kernels"]


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("padded", [False, True])
def test_heads_by_themselves_add_up_to_the_whole(name: str, padded: bool) -> None:
    whole, x = layer(VARIANTS[name]), inputs().requires_grad_()
    parts = whole.spec.replace(heads_at_once=1).build(Site(DIM, causal=True)).double()
    parts.load_state_dict(whole.state_dict())
    call = ragged(MASK) if padded else Call(Places.run(0, 9))
    real = MASK if padded else torch.ones_like(MASK)
    once = Call(call.at, remember=False)
    out = parts(x, once)
    assert len(parts.parts(once, None)) == HEADS
    torch.testing.assert_close(out.y[real], whole(x, call).y[real])
    ours = torch.autograd.grad(out.y[real].square().sum(), [x, *parts.parameters()])
    wanted = torch.autograd.grad(whole(x, call).y[real].square().sum(), [x, *whole.parameters()])
    torch.testing.assert_close(ours, wanted)


@pytest.mark.parametrize("modules", [4, 8])
def test_a_share_of_heads_sees_the_modules_beside_its_own(modules: int) -> None:
    built = awake(MultConv(modules, width=5).build(Site(16, heads=4, kv_heads=4, head_dim=4)))
    assert isinstance(built, MultConvLayer)
    x, at = torch.randn(2, 6, 16, dtype=torch.float64), Places.run(0, 6)
    whole = built.together(built.prepare(x, at, None)[0])
    for heads in (slice(0, 1), slice(1, 3), slice(3, 4)):
        share = built.share(heads)
        assert not list(share.parameters())
        some = share.together(share.prepare(x, at, None)[0])
        torch.testing.assert_close(some, tuple(t[:, heads] for t in whole))


@pytest.mark.parametrize("chunked", [False, True])
def test_a_reversible_stack_of_them_has_the_gradients_of_plain_autograd(chunked: bool) -> None:
    projection = MultConv(4, output="mult" if chunked else "multconv", values="fixed")
    attention = Attention(HEADS, projection=projection, heads_at_once=1 if chunked else None)
    blocks = (Block((attention, MLP(8, chunk=4 if chunked else None))),) * 3
    spec = Decoder("reversible", 11, DIM, (Reversible(blocks),), head=Untied())
    model = awake(spec.build())
    tokens = torch.randint(11, (3, 9), generator=torch.Generator().manual_seed(2))
    logits = model(tokens, mask=MASK, remember=False).logits[MASK]
    ours = torch.autograd.grad(logits.square().sum(), list(model.parameters()))
    x1 = x2 = model.embedding(tokens, ragged(MASK))
    for block in model.stack.blocks[0].blocks:
        for norm, sublayer in zip(block.residual.norms, block.sublayers, strict=True):
            x1, x2 = x2, x1 + sublayer(norm(x2), ragged(MASK)).y
    wanted = model.head(model.norm(torch.cat([x1, x2], -1)), model.embedding.tokens.weight)[MASK]
    torch.testing.assert_close(logits, wanted)
    torch.testing.assert_close(ours, torch.autograd.grad(wanted.square().sum(), list(model.parameters())))


@pytest.mark.parametrize("projection", [MultConv(4, share_qk="unit"), MultConv(share_qk="average"), AveragedQK()])
def test_hashing_runs_on_them(projection: Any) -> None:
    """One chunk of everything is plain attention; in strict form, steps equal one pass."""
    fields: dict[str, Any] = {"projection": projection, "position": SelfLast(), "scale": 1.0}
    site = Site(DIM, causal=True, streaming=True)
    x = inputs()
    met = [
        awake(Attention(HEADS, **fields, select=hashing).build(site))(x, Call(Places.run(0, 9))).y
        for hashing in (None, LSH(16, 1, 4, plain_below=0))
    ]
    torch.testing.assert_close(met[0], met[1])
    strict = awake(Attention(HEADS, **fields, select=LSH(2, 2, 4, strict=True)).build(site))
    whole, state, steps = strict(x, Call(Places.run(0, 9))).y, None, []
    for t in range(9):
        out = strict(x[:, t : t + 1], Call(Places.run(t, 1)), state)
        state = out.state
        steps.append(out.y)
    torch.testing.assert_close(torch.cat(steps, 1), whole)
    assert (whole - met[0]).abs().max() > 1e-3


@pytest.mark.parametrize("before", [MultConv(4), Dense()])
def test_a_model_with_queries_and_keys_goes_on_with_their_mean(before: Any) -> None:
    after = MultConv(4, share_qk="average") if isinstance(before, MultConv) else AveragedQK()
    old = awake(Attention(HEADS, projection=before).build(Site(DIM, causal=True)))
    new = awake(Attention(HEADS, projection=after).build(Site(DIM, causal=True)))
    new.load_state_dict(old.state_dict())
    x = inputs()
    (q, k, v), (both, unit, same) = (
        layer.projection.together(layer.projection.prepare(x, Places.run(0, 9), None)[0]) for layer in (old, new)
    )
    torch.testing.assert_close((both, same), ((q + k) / 2, v))
    torch.testing.assert_close(unit, F.normalize(both, dim=-1), rtol=1e-4, atol=0)
    if isinstance(before, Dense):
        share = new.projection.share(slice(1, 2))
        torch.testing.assert_close(share.together(x), tuple(t[:, 1:] for t in (both, unit, same)))
        torch.testing.assert_close(new.projection.queries(x), both)


def test_autocast_runs_forward_and_back() -> None:
    built, x = layer(MultConv(4, output="multconv", values="fixed")).float(), inputs().float()
    exact = built(x, Call(Places.run(0, 9))).y
    with torch.autocast("cpu", torch.bfloat16):
        out = built(x, Call(Places.run(0, 9)))
        step = built(x[:, :1], Call(Places.run(9, 1)), out.state).y
    assert (out.y - exact).norm() < 0.05 * exact.norm()
    out.y.float().sum().backward()
    assert step.isfinite().all()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in built.parameters())


WRONG = {
    "12 numbers do not split into 5 modules\n      fix: modules=4": MultConv(5),
    "12 numbers do not split into 0 modules\n      fix: modules=1": MultConv(0),
    "a kernel of 2 modules has no middle one\n      fix: width=3": MultConv(width=2),
    "a kernel of -1 modules has no middle one\n      fix: width=1": MultConv(width=-1),
    "a kernel of 0 tokens sees nothing\n      fix: length=3": MultConv(length=0),
    "'other' is a str, not one of": MultConv(share_qk="other"),
}


def refused(*sublayers: Any) -> str:
    with pytest.raises(ConfigError) as error:
        Decoder("wrong", 11, DIM, (Block(sublayers),)).build(streaming=True)
    return str(error.value)


@pytest.mark.parametrize("message", WRONG)
def test_bad_kernels_and_modules_are_named_with_a_mend(message: str) -> None:
    told = refused(Attention(HEADS, projection=WRONG[message]))
    assert message in told
    assert told.startswith("wrong cannot be built: 1 problem\n")


def test_what_it_cannot_go_with_is_named() -> None:
    grouped = refused(Attention(4, 2, projection=MultConv()))
    assert "4 heads have keys made module by module, and cannot share 2 key heads\n      fix: kv_heads=None" in grouped
    wide = refused(Attention(4, head_dim=5, projection=MultConv()))
    assert "4 heads of 5 numbers are not the 12 of the stream\n      fix: head_dim=None" in wide
    for projection in (MultConv(3), MultConv(4, values="original"), MultConv(4, output="conv")):
        at_once = refused(Attention(HEADS, projection=projection, heads_at_once=1))
        assert f"{projection!r} is not cut into groups of heads\n      fix: heads_at_once=None" in at_once
    across = refused(CrossAttention(HEADS, projection=MultConv()))
    assert "MultConv() makes keys of the tokens that queries are made of" in across
    assert "fix: projection=SparseQueries()" in across
    apart = refused(Attention(HEADS, projection=MultConv(), select=LSH()))
    assert "LSH puts queries and keys in one order" in apart
    for projection in (MultConv(output="conv"), SparseQueries()):
        unkept = refused(SinkhornAttention(HEADS, projection=projection))
        assert (
            f"sorted attention does not keep what {projection!r} must remember\n      fix: projection=Dense()" in unkept
        )
    nobody = refused(Attention(0, projection=MultConv(), heads_at_once=1))
    assert "heads, kv_heads and head_dim must be positive, got 0" in nobody


def test_it_survives_json() -> None:
    spec = Decoder("x", 11, DIM, (Block((Attention(HEADS, projection=VARIANTS["multconv"]),)),))
    assert from_json(spec.to_json()) == spec
