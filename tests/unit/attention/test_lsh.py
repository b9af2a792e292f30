"""LSH attention: what it means, what it promises, and what it does not."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers import MLP, Attention, Block, ConfigError, Decoder, Encoder, stack
from formers.attention import LSH, Routing, SharedQK
from formers.attention.oracle import attend_dense
from formers.attention.sorted.plan import SortedPlan
from formers.call import Call
from formers.places import Places
from formers.position import SelfLast
from formers.spec import Site
from formers.tokens import place


def attention(select: LSH | None, heads: int = 2, **fields: object) -> Attention:
    return Attention(heads, projection=SharedQK(), position=SelfLast(), scale=1.0, select=select, **fields)


def layer(select: LSH | None, causal: bool = True, **fields: object) -> nn.Module:
    torch.manual_seed(0)
    built = attention(select, **fields).build(Site(8, causal=causal)).double()
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.5)
    return built


def twin(select: LSH | None, of: nn.Module, **fields: object) -> nn.Module:
    other = layer(select, **fields)
    other.load_state_dict(of.state_dict())
    return other


def run(length: int, rows: int = 2) -> tuple[Tensor, Call]:
    torch.manual_seed(1)
    return torch.randn(rows, length, 8, dtype=torch.float64), Call(Places.run(0, length))


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "two-sided"])
def test_one_chunk_of_everything_is_plain_shared_attention(causal: bool) -> None:
    hashed = layer(LSH(chunk=16, rounds=1, buckets=4, plain_below=0), causal)
    x, call = run(13)
    q = hashed.projection.queries(x)
    torch.testing.assert_close(hashed.projection.together(x)[1], F.normalize(q, dim=-1), rtol=1e-5, atol=0)
    visible = torch.ones(13, 13, dtype=torch.bool)
    heads = attend_dense(
        q,
        *hashed.projection.keys_values(x),
        visible.tril() if causal else visible,
        scale=1.0,
        bias=-1e5 * torch.eye(13),
    )
    torch.testing.assert_close(hashed(x, call).y, hashed.projection.output(heads))


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 40])
def test_below_the_length_where_it_pays_it_is_plain_shared_attention(length: int) -> None:
    hashed = layer(LSH(chunk=4, rounds=1, plain_below=16))
    x, call = run(length)
    plain = twin(None, hashed)(x, call).y
    if length <= 16:
        torch.testing.assert_close(hashed(x, call).y, plain)
    else:
        assert (hashed(x, call).y - plain).abs().max() > 1e-3


@pytest.mark.parametrize("same_bucket", [False, True])
def test_several_rounds_are_one_softmax_over_the_union_of_their_pairs(same_bucket: bool) -> None:
    hashed = layer(LSH(chunk=4, rounds=4, buckets=4, same_bucket=same_bucket, plain_below=0))
    x, call = run(21)
    out = hashed(x, call)
    met = union(hashed.select.plan(out.choices, call.at, call.at), 21)
    visible = met & torch.ones(21, 21).tril().bool()
    assert 0 < visible.sum() < 2 * 2 * 21 * 11
    q, k, v = hashed.projection.together(x)
    heads = attend_dense(q, k, v, visible, scale=1.0, bias=-1e5 * torch.eye(21))
    torch.testing.assert_close(out.y, hashed.projection.output(heads))


def union(plan: SortedPlan, length: int) -> Tensor:
    """The pairs that some round brings together, by the definition: chunk ids of a round are at most one apart."""
    rules, chunk = plan.rules, plan.slot // plan.rules.chunk
    back = chunk[..., :, None] - chunk[..., None, :]
    met = (back >= -rules.after) & (back <= rules.before)
    if rules.same:
        met = met & (plan.bucket[..., :, None] == plan.bucket[..., None, :])
    return met.any(2)


@pytest.mark.parametrize("row", [(0, 1), (0, 1, 2, 3, 4), (11, 12), (5,)])
@pytest.mark.parametrize("plain_below", [0, 99])
def test_padding_may_stand_anywhere_and_is_met_by_nobody(row: tuple[int, ...], plain_below: int) -> None:
    hashed = layer(LSH(chunk=4, rounds=2, buckets=4, plain_below=plain_below))
    x, _ = run(13)
    mask = torch.ones(2, 13, dtype=torch.bool)
    mask[:, list(row)] = False
    padded = hashed(x, Call(place(torch.zeros(2, 13).long(), 0, mask, None))).y
    alone = hashed(x[:, mask[0]], Call(Places.run(0, 13 - len(row)))).y
    torch.testing.assert_close(padded[:, mask[0]], alone)


def test_no_value_flows_from_later_tokens_and_with_frozen_buckets_nothing_does() -> None:
    hashed = layer(LSH(chunk=4, rounds=2, buckets=4, plain_below=0))
    x, call = run(24)
    out = hashed(x, call)
    later = x.clone()
    later[:, 20:] = torch.randn(2, 4, 8)
    frozen = hashed(later, call, choices=out.choices)
    assert torch.equal(frozen.y[:, :20], out.y[:, :20])
    x.requires_grad_()
    (slope,) = torch.autograd.grad(hashed(x, call).y[:, :12].sum(), x)
    assert not slope[:, 12:].any()


def test_later_tokens_can_move_borders_unless_strict() -> None:
    """The documented limit of LSH in a decoder, and its mend."""

    def changed(select: LSH) -> int:
        hashed, (x, call) = layer(select), run(24)
        later = x.clone()
        later[:, 23:] = torch.randn(2, 1, 8)
        moved = (hashed(later, call).y - hashed(x, call).y)[:, :23].abs().amax(-1)
        return int((moved > 1e-12).sum())

    assert changed(LSH(chunk=4, rounds=2, buckets=4, plain_below=0)) > 0
    assert changed(LSH(chunk=4, rounds=2, buckets=4, strict=True)) == 0


def test_strict_hashing_meets_the_latest_of_its_bucket() -> None:
    hashed = layer(LSH(chunk=3, rounds=2, buckets=4, strict=True))
    x, call = run(30)
    out = hashed(x, call)
    buckets = out.choices  # (B, H, R, S)
    visible = torch.zeros(2, 2, 30, 30, dtype=torch.bool)
    for b, h, r, q in torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(2), torch.arange(30)):
        mates = (buckets[b, h, r, : q + 1] == buckets[b, h, r, q]).nonzero()[-3:, 0]
        visible[b, h, q, mates] = True
    q, k, v = hashed.projection.together(x)
    heads = attend_dense(q, k, v, visible, scale=1.0, bias=-1e5 * torch.eye(30))
    torch.testing.assert_close(out.y, hashed.projection.output(heads))


def test_decoding_meets_the_tokens_of_its_buckets_first() -> None:
    """Where a step may meet as many tokens as there are, it equals plain attention."""
    wide = layer(LSH(chunk=8, rounds=2, buckets=4, plain_below=0))
    x, call = run(32)
    before = wide(x[:, :31], Call(Places.run(0, 31)))
    step = wide(x[:, 31:], Call(Places.run(31, 1)), before.state).y
    torch.testing.assert_close(step, twin(None, wide)(x, call).y[:, 31:])
    narrow = twin(LSH(chunk=4, rounds=1, buckets=8, plain_below=0), wide)
    before = narrow(x[:, :31], Call(Places.run(0, 31)))
    out = narrow(x[:, 31:], Call(Places.run(31, 1)), before.state)
    keys = narrow.select.plan(out.choices, Places.run(31, 1), Places.run(0, 32)).groups[0].k_index
    assert keys.shape[-1] == 8
    mates = out.choices[:, :, 0, 31:] == out.choices[:, :, 0]
    chosen = torch.zeros(2, 2, 32, dtype=torch.bool).scatter(2, keys[:, :, 0], True)
    left_out, others = (mates & ~chosen).any(-1), (chosen & ~mates).any(-1)
    assert not (left_out & others).any() and others.any()


def test_rotations_follow_the_seed_of_the_call_and_differ_between_layers() -> None:
    spec = Decoder("lsh", 11, 8, stack(Block((attention(LSH(4, 2, 6, plain_below=0)), MLP(8))), times=2))
    one, two = (block.sublayers[0].select for block in spec.build().stack.blocks)
    x = torch.randn(1, 2, 50, 4)
    call, other = Call(Places.run(0, 50), seed=3), Call(Places.run(0, 50), seed=4)
    assert torch.equal(one.hash(x, (6,), call), one.hash(x, (6,), call))
    assert not torch.equal(one.hash(x, (6,), call), one.hash(x, (6,), other))
    assert not torch.equal(one.hash(x, (6,), call), two.hash(x, (6,), call))
    assert torch.equal(one.hash(7 * x, (6,), call), one.hash(x, (6,), call))


def test_buckets_grow_with_the_sequence_and_are_factored() -> None:
    rule = layer(LSH(chunk=64)).select
    assert rule.factors(1) == (2,)
    assert rule.factors(4096) == (128,)
    for length in (8192, 16_384, 131_072, 1 << 20):
        factors = rule.factors(length)
        assert len(factors) == 2 and all(count % 2 == 0 for count in factors)
        assert math.prod(factors) == 2 * length // 64
    buckets = rule.hash(torch.randn(1, 2, 500, 4, dtype=torch.float64), (4, 6), Call(Places.run(0, 500)))
    assert buckets.min() >= 0 and buckets.max() < 24 and len(buckets.unique()) == 24


def test_decoding_tells_the_number_of_buckets_anew_as_the_text_doubles() -> None:
    """A text that begins with one token must not stay with the two buckets of that."""
    rule = layer(LSH(chunk=4, rounds=2)).select
    keys, state = torch.randn(1, 2, 70, 4, dtype=torch.float64), None
    for length in range(1, 71):
        known = keys[:, :, :length]
        call = Call(Places(torch.tensor([[length - 1]]), None))
        chosen = rule.choose(known[:, :, -1:], known, call, Places.run(0, length), state)
        state = chosen.state
        assert math.prod(state.factors) <= math.prod(rule.factors(length)) < 2 * math.prod(state.factors)
        assert torch.equal(chosen.choices, rule.hash(known, state.factors, call))


def test_gradients_are_right() -> None:
    hashed = layer(LSH(chunk=3, rounds=2, buckets=4, plain_below=0))
    x, call = run(10, rows=1)
    choices = hashed(x, call).choices
    assert torch.autograd.gradcheck(lambda x: hashed(x, call, choices=choices).y, x.requires_grad_())


def test_heads_at_once_come_to_the_same_with_the_same_gradients() -> None:
    whole = layer(LSH(chunk=4, rounds=2, buckets=4, plain_below=0), heads=4)
    cut = twin(LSH(chunk=4, rounds=2, buckets=4, plain_below=0), whole, heads=4, heads_at_once=2)
    x, call = run(19)
    call = Call(call.at, remember=False)
    x.requires_grad_()
    outs = [each(x, call).y for each in (whole, cut)]
    torch.testing.assert_close(*outs)
    slopes = [
        torch.autograd.grad(out.square().sum(), [x, *each.parameters()])
        for out, each in zip(outs, (whole, cut), strict=True)
    ]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize(
    ("wrong", "message", "mend"),
    [
        (LSH(buckets=7), "7 buckets cannot be", "buckets=8"),
        (LSH(buckets=()), "no buckets chooses nothing", "buckets=64"),
        (LSH(buckets=(4, 5)), "5 buckets cannot be", r"buckets=\(4, 6\)"),
        (LSH(chunk=0), "at least 1", "chunk=64"),
        (LSH(after=1), "sees nothing of the 1 chunks after", "after=0"),
        (LSH(wrap=True), "not counted across rounds", "once=False"),
        (LSH(strict=True), "does not grow with the sequence", "buckets=64"),
        (LSH(strict=True, buckets=4, plain_below=9), "contradicts", "plain_below=None"),
    ],
)
def test_what_cannot_be_is_refused_with_a_mend(wrong: LSH, message: str, mend: str) -> None:
    with pytest.raises(ConfigError, match=f"{message}(.|\n)*{mend}"):
        Decoder("wrong", 11, 8, (Block((attention(wrong),)),)).build()


@pytest.mark.parametrize(
    "select",
    [LSH(), LSH(32, 2, (4, 6), plain_below=9), LSH(once=False, wrap=True, before=0), Routing(8, balanced=True)],
    ids=repr,
)
def test_what_cannot_stream_names_the_form_of_it_that_can(select: LSH | Routing) -> None:
    def model(of: LSH | Routing) -> Decoder:
        return Decoder("streams", 11, 8, (Block((attention(of),)),))

    with pytest.raises(ConfigError, match="cannot equal one pass") as refused:
        model(select).build(streaming=True)
    form = select.stable_form
    assert f"select={form!r}, or select=TopBlocks(" in str(refused.value)
    model(form).build(streaming=True)


def test_separate_keys_and_exact_streaming_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"must be the same(.|\n)*SharedQK\(\)"):
        Decoder("wrong", 11, 8, (Block((Attention(2, select=LSH()),)),)).build()
    spec = Decoder("lsh", 11, 8, (Block((attention(LSH()),)),))
    with pytest.raises(ConfigError, match=r"LSH chooses from the whole sequence(.|\n)*TopBlocks"):
        spec.build(streaming=True)
    Encoder("lsh", 11, 8, spec.blocks).build(streaming=True)  # an encoder sees its whole sequence at once
    with pytest.raises(ConfigError, match="there are 1 key heads"):
        spec.replace(blocks=(Block((attention(None).replace(kv_heads=1),)),)).build()
