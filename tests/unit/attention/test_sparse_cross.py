"""Cross-attention with sparse queries: its formula, its state, and where it is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers import (
    MLP,
    Attention,
    Block,
    ConfigError,
    CrossAttention,
    Decoder,
    Encoder,
    EncoderDecoder,
    Reversible,
    stack,
)
from formers.attention import SparseQueries
from formers.attention.oracle import attend_dense
from formers.call import Call, Encoded
from formers.encoder_decoder import EncoderDecoderLayer
from formers.places import Places
from formers.spec import Site
from formers.state import select
from formers.tokens import place

DIM, HEADS = 12, 2
OUTPUTS = ["none", "dense", "mult", "conv", "multconv"]
SOURCE_MASK = torch.tensor([[1, 1, 1, 0, 0], [1] * 5, [0, 1, 0, 0, 1]]).bool()
MASK = torch.tensor([[0, 1, 1, 0, 0, 1, 1], [1] * 7, [0, 0, 0, 0, 0, 0, 1]]).bool()


def layer(output: str = "none", **fields: Any) -> nn.Module:
    torch.manual_seed(0)
    projection = SparseQueries(4, output=output)
    built = CrossAttention(HEADS, projection=projection, **fields).build(Site(DIM, causal=True, encoder=True)).double()
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.4)
    return built


def inputs(length: int) -> Tensor:
    return torch.randn(3, length, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(length))


def convolved(x: Tensor, conv: nn.Module) -> Tensor:
    image = x.unflatten(-1, (4, -1)).permute(0, 3, 1, 2)
    y = F.conv2d(F.pad(image, (1, 1, 2, 0)), conv.weight, conv.bias)
    return y.permute(0, 2, 3, 1).flatten(2)


def multiplied(x: Tensor, mult: nn.Module) -> Tensor:
    return torch.einsum("bti,si,im->btsm", x, mult.gate, mult.mix).flatten(2) + mult.bias


def plain(built: nn.Module, x: Tensor, source: Tensor) -> Tensor:
    p = built.projection
    q = convolved(multiplied(x, p.mult), p.q_conv).unflatten(-1, (HEADS, -1)).transpose(1, 2)
    k, v = (part(source).unflatten(-1, (-1, DIM // HEADS)).transpose(1, 2) for part in (p.k_proj, p.v_proj))
    k, v = (t.repeat_interleave(HEADS // k.shape[1], 1) for t in (k, v))
    y = attend_dense(q, k, v, torch.ones(x.shape[1], source.shape[1]).bool(), scale=built.scale)
    y = y.transpose(1, 2).flatten(2)
    y = y if p.out_mult is None else multiplied(y, p.out_mult)
    y = y if p.out_proj is None else p.out_proj(y)
    return y if p.out_conv is None else convolved(y, p.out_conv)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("kv_heads", [None, 1])
def test_it_is_the_formula(output: str, kv_heads: int | None) -> None:
    built, x, source = layer(output, kv_heads=kv_heads), inputs(7), inputs(5)
    out = built(x, Call(Places.run(0, 7), Encoded(source, Places.run(0, 5))))
    torch.testing.assert_close(out.y, plain(built, x, source))


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("cuts", [[7], [1] * 7, [3, 4]], ids=str)
def test_steps_equal_one_pass_and_rows_alone_wherever_padding_stands(output: str, cuts: list[int]) -> None:
    built, x, source = layer(output), inputs(7), inputs(5)
    at_source = place(torch.zeros(3, 5).long(), 0, SOURCE_MASK, None)
    state, made, encoded = None, [], Encoded(source, at_source)
    for part, mask in zip(x.split(cuts, 1), MASK.split(cuts, 1), strict=True):
        at = place(torch.zeros(mask.shape).long(), 0, mask, None)
        out = built(part, Call(at, encoded), state)
        state, encoded = out.state, None  # as in an encoder-decoder: the first step takes it all
        made.append(out.y)
    y = torch.cat(made, 1)
    for row in range(3):
        alone = plain(built, x[row : row + 1, MASK[row]], source[row : row + 1, SOURCE_MASK[row]])
        torch.testing.assert_close(y[row, MASK[row]], alone[0])


@pytest.mark.parametrize("output", ["none", "multconv"])
def test_tokens_that_are_carried_past_leave_what_the_next_ones_need(output: str) -> None:
    built, x, encoded = layer(output), inputs(7), Encoded(inputs(5), Places.run(0, 5))
    whole = built(x, Call(Places.run(0, 7), encoded)).y
    state = built.skip(x[:, :2], Call(Places.run(0, 2), encoded))
    state = built.skip(x[:, 2:4], Call(Places.run(2, 2)), state)
    torch.testing.assert_close(built(x[:, 4:], Call(Places.run(4, 3)), state).y, whole[:, 4:])


def test_keys_and_values_are_made_once() -> None:
    built, x = layer(), inputs(7)
    first = built(x[:, :1], Call(Places.run(0, 1), Encoded(inputs(5), Places.run(0, 5)))).state
    second = built(x[:, 1:2], Call(Places.run(1, 1)), first).state
    assert second.memory is first.memory
    with pytest.raises(ValueError, match="neither an encoder's output nor the state"):
        built(x, Call(Places.run(0, 7)))


def model(reversible: bool) -> EncoderDecoderLayer:
    torch.manual_seed(0)
    block = Block((Attention(HEADS), CrossAttention(HEADS, projection=SparseQueries(4, output="multconv")), MLP(8)))
    blocks = (Reversible(stack(block, times=2), "mean"),) if reversible else stack(block, times=2)
    source = Encoder("source", 11, DIM, stack(Block((Attention(HEADS), MLP(8))), times=1))
    built = EncoderDecoder("sparse", source, Decoder("target", 11, DIM, blocks)).build(streaming=True)
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.4)
    return built.double()


@pytest.mark.parametrize("reversible", [False, True])
def test_a_model_with_it_decodes_ragged_batches_and_reorders_them(reversible: bool) -> None:
    built = model(reversible)
    source, target = torch.randint(11, (3, 5)), torch.randint(11, (3, 7))
    whole = built(source, target, source_mask=SOURCE_MASK).logits
    state, made = built.start(source, SOURCE_MASK), []
    for t in range(7):
        out = built.step(target[:, t : t + 1], state)
        state = out.state
        made.append(out.logits)
        if t == 3:
            rows = torch.tensor([2, 0])
            ahead = built.step(target[rows, 4:5], select(state, rows)).logits
    torch.testing.assert_close(torch.cat(made, 1), whole)
    torch.testing.assert_close(ahead, whole[rows, 4:5])


def test_a_reversible_decoder_has_the_gradients_of_an_ordinary_pass() -> None:
    built = model(reversible=True)
    source, target = torch.randint(11, (3, 5)), torch.randint(11, (3, 7))
    learned = list(built.parameters())
    logits = built(source, target, source_mask=SOURCE_MASK, remember=False).logits
    ours = torch.autograd.grad(logits.square().sum(), learned)
    at = place(source, 0, SOURCE_MASK, None)
    encoded = Encoded(built.source(source, mask=SOURCE_MASK, logits_at=None).hidden, at)
    call = Call(Places.run(0, 7), encoded)
    x1 = x2 = built.target.embedding(target, call)
    for block in built.target.stack.blocks[0].blocks:
        for norm, sublayer in zip(block.residual.norms, block.sublayers, strict=True):
            x1, x2 = x2, x1 + sublayer(norm(x2), call).y
    wanted = built.target.read((x1 + x2) / 2)
    torch.testing.assert_close(logits, wanted)
    torch.testing.assert_close(ours, torch.autograd.grad(wanted.square().sum(), learned))


def test_it_is_refused_where_keys_are_of_the_same_tokens() -> None:
    with pytest.raises(ConfigError, match="makes keys of an encoder's output, and there is none here"):
        Decoder("wrong", 11, DIM, (Block((Attention(HEADS, projection=SparseQueries()),)),)).build()


WRONG = {
    "12 numbers do not split into 5 modules\n      fix: modules=4": SparseQueries(5),
    "a kernel of 2 modules has no middle one\n      fix: width=3": SparseQueries(width=2),
    "'other' is a str, not one of": SparseQueries(output="other"),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_is_named_with_a_mend(message: str) -> None:
    cross = CrossAttention(HEADS, projection=WRONG[message])
    source = Encoder("source", 11, DIM, (Block((MLP(8),)),))
    with pytest.raises(ConfigError) as error:
        EncoderDecoder("wrong", source, Decoder("target", 11, DIM, (Block((cross,)),))).build()
    assert message in str(error.value)
