"""The other sparse projections against their formulas, step by step and in ragged rows."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers import Attention, Block, ConfigError, CrossAttention, Decoder
from formers.attention import Convolutional, LowRank, Modular, Multiplicative, MultiplicativeModular
from formers.attention.oracle import attend_dense
from formers.call import Call, Encoded
from formers.places import Places
from formers.sparse import LowRankLinear, ModularLinear, MultiplicativeLinear
from formers.spec import Site
from formers.tokens import place

DIM, HEADS = 12, 2
VARIANTS = {
    "multiplicative": Multiplicative(),
    "multiplicative in six": Multiplicative(6),
    "multiplicative and modular": MultiplicativeModular(4),
    "modular": Modular(4),
    "modular of three": Modular(4, 3),
    "low rank": LowRank(3),
    "convolutional": Convolutional(),
    "convolutional in time": Convolutional(4, 3, 3),
}


def layer(projection: Any, heads: int = HEADS, **fields: Any) -> nn.Module:
    torch.manual_seed(0)
    built = Attention(heads, projection=projection, **fields).build(Site(DIM, causal=True)).double()
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.4)
    return built


def inputs(rows: int = 3, length: int = 9) -> Tensor:
    return torch.randn(rows, length, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def applied(part: Any, x: Tensor) -> Tensor:
    """One layer, by its formula."""
    if isinstance(part, nn.Sequential):
        return applied(part[1], applied(part[0], x))
    if isinstance(part, MultiplicativeLinear):
        y = torch.einsum("bti,si,im->btsm", x, part.gate, part.mix).flatten(2)
        return y if part.bias is None else y + part.bias
    if isinstance(part, LowRankLinear):
        return (x @ part.down.T + part.down_bias) @ part.up.T + part.up_bias
    if isinstance(part, ModularLinear):
        row, half = x.unflatten(-1, (len(part.weight), -1)), part.width // 2
        near = torch.cat([torch.roll(row, -n, -2) for n in range(-half, half + 1)], -1)
        return torch.einsum("btsi,sio->btso", near, part.weight).flatten(2) + part.bias
    kl, k = part.weight.shape[2:]
    image = x.unflatten(-1, (-1, part.weight.shape[1])).permute(0, 3, 1, 2)
    y = F.conv2d(F.pad(image, (k // 2, k // 2, kl - 1, 0)), part.weight, part.bias)
    return y.permute(0, 2, 3, 1).flatten(2)


def plain(built: nn.Module, x: Tensor) -> Tensor:
    p, length = built.projection, x.shape[1]
    kind = "conv" if hasattr(p, "q_conv") else "proj"
    parts = [getattr(p, f"{name}_{kind}") for name in ("q", "k", "v")]
    q, k, v = (applied(part, x).unflatten(-1, (-1, p.head_dim)).transpose(1, 2) for part in parts)
    k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
    y = attend_dense(q, k, v, torch.ones(length, length).tril().bool(), scale=built.scale)
    return applied(getattr(p, f"out_{kind}"), y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("name", VARIANTS)
def test_each_is_its_formula_with_its_gradients(name: str) -> None:
    built, x = layer(VARIANTS[name]), inputs().requires_grad_()
    y, wanted = built(x, Call(Places.run(0, 9))).y, plain(built, x)
    torch.testing.assert_close(y, wanted)
    leaves, weight = [x, *built.parameters()], inputs() + 1
    ours = torch.autograd.grad((y * weight).sum(), leaves)
    torch.testing.assert_close(ours, torch.autograd.grad((wanted * weight).sum(), leaves))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("cuts", [[9], [1] * 9, [2, 1, 6]], ids=str)
def test_steps_equal_one_pass_and_rows_alone_wherever_padding_stands(name: str, cuts: list[int]) -> None:
    mask = torch.tensor([[0, 1, 1, 0, 0, 1, 1, 1, 0], [1] * 9, [0, 0, 0, 0, 0, 0, 1, 0, 0]]).bool()
    built, x, state, made, seen = layer(VARIANTS[name]), inputs(), None, [], torch.zeros(3).long()
    for part, real in zip(x.split(cuts, 1), mask.split(cuts, 1), strict=True):
        out = built(part, Call(place(torch.zeros(real.shape).long(), seen, real, None)), state)
        made.append(out.y)
        state, seen = out.state, seen + real.sum(1)
    y = torch.cat(made, 1)
    for row in range(3):
        torch.testing.assert_close(y[row, mask[row]], plain(built, x[row : row + 1, mask[row]])[0])


@pytest.mark.parametrize("kv_heads", [None, 1])
@pytest.mark.parametrize("projection", [LowRank(3), Multiplicative(), Multiplicative(6)], ids=repr)
def test_some_heads_by_themselves_add_up_to_the_whole(projection: Any, kv_heads: int | None) -> None:
    if kv_heads is not None and isinstance(projection, Multiplicative):
        with pytest.raises(ConfigError, match="cannot share 1 key heads\n      fix: kv_heads=None"):
            Decoder("grouped", 7, DIM, (Block((Attention(2, 1, projection=projection),)),)).build()
        return
    at_once = HEADS if kv_heads else 1
    whole = layer(projection, 4 if kv_heads else 2, kv_heads=2 if kv_heads else None)
    parts = layer(projection, 4 if kv_heads else 2, kv_heads=2 if kv_heads else None, heads_at_once=at_once)
    x, call = inputs().requires_grad_(), Call(Places.run(0, 9), remember=False)
    assert len(parts.parts(call, None)) == 2
    torch.testing.assert_close(parts(x, call).y, whole(x, call).y)
    torch.testing.assert_close(parts(x, call).y, plain(whole, x))
    ours = torch.autograd.grad(parts(x, call).y.square().sum(), [x, *parts.parameters()])
    torch.testing.assert_close(ours, torch.autograd.grad(whole(x, call).y.square().sum(), [x, *whole.parameters()]))


@pytest.mark.parametrize("name", [n for n in VARIANTS if "convolutional" not in n])
def test_those_of_each_token_by_itself_serve_cross_attention(name: str) -> None:
    torch.manual_seed(0)
    built = CrossAttention(HEADS, projection=VARIANTS[name]).build(Site(DIM, causal=True, encoder=True)).double()
    x, source = inputs(), inputs(3, 5)
    out = built(x, Call(Places.run(0, 9), Encoded(source, Places.run(0, 5))))
    p = built.projection
    q, k, v = (
        applied(part, t).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        for part, t in ((p.q_proj, x), (p.k_proj, source), (p.v_proj, source))
    )
    y = attend_dense(q, k, v, torch.ones(9, 5).bool(), scale=built.scale)
    torch.testing.assert_close(out.y, applied(p.out_proj, y.transpose(1, 2).flatten(2)))


WRONG = {
    "12 numbers do not split into 5 modules\n      fix: modules=4": Multiplicative(5),
    "12 numbers do not split into 7 modules\n      fix: modules=6": MultiplicativeModular(7),
    "of 4 modules in a circle, 2 have no middle one\n      fix: width=1": Modular(4, 2),
    "of 2 modules in a circle, 3 have no middle one\n      fix: width=1": Modular(width=3),
    "nothing passes a middle of 0 numbers\n      fix: rank=64": LowRank(0),
    "a kernel of 4 modules has no middle one\n      fix: width=5": Convolutional(width=4),
    "a kernel of -2 tokens sees nothing\n      fix: length=3": Convolutional(length=-2),
}


def refused(*sublayers: Any) -> str:
    with pytest.raises(ConfigError) as error:
        Decoder("wrong", 11, DIM, (Block(sublayers),)).build()
    return str(error.value)


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_is_named_with_a_mend(message: str) -> None:
    assert message in refused(Attention(HEADS, projection=WRONG[message]))


@pytest.mark.parametrize(
    "projection", [Multiplicative(3), MultiplicativeModular(), Modular(), Convolutional()], ids=repr
)
def test_heads_at_once_is_refused_where_heads_are_not_apart(projection: Any) -> None:
    told = refused(Attention(HEADS, projection=projection, heads_at_once=1))
    assert f"{projection!r} is not cut into groups of heads\n      fix: heads_at_once=None" in told


def test_odd_widths_of_heads_must_split_into_modules_as_well() -> None:
    assert "10 numbers do not split into 4 modules" in refused(Attention(2, head_dim=5, projection=Multiplicative(4)))
    layer(Multiplicative(2), head_dim=5)
    layer(LowRank(2), head_dim=5)
