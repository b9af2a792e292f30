"""Blocks chosen by content: the choice against a plain loop, attention against the dense oracle, and decoding exactly."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from formers import (
    ALiBi,
    Attention,
    Block,
    Causal,
    ConfigError,
    Decoder,
    Embedding,
    Encoder,
    Everything,
    Rotary,
    Tied,
    Window,
)
from formers.attention.oracle import attend_dense
from formers.attention.pattern import Pattern
from formers.attention.tiles import attend_tiles
from formers.attention.top_blocks import rule as choosing
from formers.attention.top_blocks.rule import TopBlocks, TopBlocksRule
from formers.call import Call
from formers.places import Places, keys, queries
from formers.position import NoPosition
from formers.spec import Site

H, D, M, VOCAB = 2, 8, 16, 30
HEAD = torch.arange(H)[:, None, None]
PADDED = [[0] * 9 + [1] * 28, [1] * 37, [1] * 6 + [0] * 31, [1] * 10 + [0] * 8 + [1] * 19]


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def rule(block: int, count: int, causal: bool = True) -> TopBlocksRule:
    built = TopBlocks(block, count).build(Site(dim=M, causal=causal, heads=H, kv_heads=H, head_dim=D))
    assert isinstance(built, TopBlocksRule)
    return built


def places(rows: list[list[int]]) -> Places:
    real = torch.tensor(rows, dtype=torch.bool)
    return Places((real.cumsum(1) - 1).clamp(min=0), real)


WHERE = {"run": Places.run(0, 37), "late run": Places.run(11, 37), "padded": places(PADDED)}


def qkv(length: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(len(PADDED), H, length, D, generator=generator) for _ in range(3)]


def plainly_chosen(q: Tensor, k: Tensor, at: Places, block: int, count: int, causal: bool) -> Tensor:
    """(B, H, T, S): which keys the words of the docstring let each query meet, one query at a time."""
    batch, heads, length, _ = q.shape
    pos = at.pos.expand(batch, -1)
    real = torch.ones_like(pos, dtype=torch.bool) if at.real is None else at.real
    meets = torch.zeros(batch, heads, length, length, dtype=torch.bool)
    for b in range(batch):
        of = torch.where(real[b], pos[b] // block, -1)
        for h in range(heads):
            for t in real[b].nonzero()[:, 0].tolist():
                own = int(of[t])
                others = [n for n in of.unique().tolist() if n >= 0 and n != own and (n < own or not causal)]
                product = {n: float(q[b, h, t] @ k[b, h, of == n].mean(0)) for n in others}
                best = sorted(others, key=lambda n: (-product[n], n))[:count]
                meets[b, h, t] = torch.isin(of, torch.tensor([own, *best]))
    return meets


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("block", "count"), [(1, 3), (4, 2), (5, 1), (16, 4), (50, 2)])
def test_attention_equals_the_dense_oracle_on_a_plain_loops_choice(
    where: str, causal: bool, block: int, count: int
) -> None:
    at = WHERE[where]
    pattern: Pattern = Causal() if causal else Everything()
    q, k, v = (x.requires_grad_() for x in qkv(37))
    chooser = rule(block, count, causal)
    plan = chooser.plan(chooser.choose(q, k, Call(at), at).choices, at, at).tiles()
    plain = NoPosition().build(Site(dim=M, heads=H, head_dim=D))
    out, _ = attend_tiles(q, k, v, plan, at=at, to=at, pattern=pattern, position=plain, scale=0.4)
    mask = pattern.visible(queries(at), keys(at), HEAD) & plainly_chosen(
        q.detach(), k.detach(), at, block, count, causal
    )
    keep = torch.ones_like(out, dtype=torch.bool) if at.real is None else at.real[:, None, :, None].expand_as(out)
    wanted = attend_dense(q, k, v, mask, scale=0.4)
    torch.testing.assert_close(out[keep], wanted[keep])
    ours, theirs = (torch.autograd.grad(x[keep].square().sum(), (q, k, v)) for x in (out, wanted))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("causal", [True, False])
def test_a_choice_in_pieces_is_the_choice(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    at = WHERE["padded"]
    q, k, _ = qkv(37)
    whole = rule(3, 3, causal).choose(q, k, Call(at), at).choices
    monkeypatch.setattr(choosing, "PIECE", 700)
    assert torch.equal(rule(3, 3, causal).choose(q, k, Call(at), at).choices, whole)


@pytest.mark.parametrize("where", ["run", "padded"])
def test_what_is_noted_of_blocks_is_what_would_be_found_by_looking_again(where: str) -> None:
    chooser, (q, k, _) = rule(4, 2), qkv(37)
    at = WHERE[where] if where == "padded" else Places(torch.arange(37).expand(len(PADDED), -1))
    whole = chooser.choose(q, k, Call(at), at)
    past, pieces = None, []
    for start, stop in [(0, 13), (13, 14), (14, 30), (30, 37)]:
        part, so_far = (Places(at.pos[:, i:stop], None if at.real is None else at.real[:, i:stop]) for i in (start, 0))
        choices, past = chooser.choose(q[:, :, start:stop], k[:, :, :stop], Call(part), so_far, past)
        pieces.append(F.pad(choices, (0, 2 - choices.shape[-1]), value=-1))
    assert torch.equal(torch.cat(pieces, 2), whole.choices)
    torch.testing.assert_close(past, whole.state)
    assert chooser.choose(q, k, Call(at, remember=False), at).state is None


def test_equal_products_go_to_the_earlier_block() -> None:
    at = Places.run(0, 200)
    q = torch.zeros(1, H, 200, D)
    choices = rule(2, 3).choose(q, torch.randn_like(q), Call(at), at).choices
    assert choices.dtype == torch.int32
    assert torch.equal(choices[0, 0, 100:].sort(-1).values, torch.arange(3, dtype=torch.int32).expand(100, 3))
    assert choices[0, 0, :2].eq(-1).all()
    assert choices[0, 0, 4:6].sort(-1).values.tolist() == [[-1, 0, 1]] * 2


def test_a_group_meets_a_query_once_and_a_tile_serves_many() -> None:
    at, chooser = Places.run(0, 700), rule(16, 3)
    q, k = torch.randn(2, H, 700, D), torch.randn(2, H, 700, D)
    plan = chooser.plan(chooser.choose(q, k, Call(at), at).choices, at, at).tiles()
    assert len(plan.groups) == 4
    for tiles in plan.groups:
        for rows in tiles.q_index.flatten(0, 1).flatten(1):
            met = rows[rows >= 0]
            assert len(met) == len(met.unique())
        assert tiles.q_index.shape[-2] < 100


def layer(select: TopBlocks | None, causal: bool = True, **fields: object) -> torch.nn.Module:
    torch.manual_seed(0)
    spec = Attention(4, select=select, **fields)  # type: ignore[arg-type]
    return spec.build(Site(dim=M, causal=causal)).eval()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kv_heads", [None, 2, 1])
def test_enough_blocks_are_full_attention(causal: bool, kv_heads: int | None) -> None:
    x, call = torch.randn(4, 37, M), Call(WHERE["padded"])
    fields = {"kv_heads": kv_heads, "position": Rotary()}
    chosen = layer(TopBlocks(4, 20), causal, **fields)(x, call).y
    full = layer(None, causal, **fields)(x, call).y
    real = WHERE["padded"].real
    torch.testing.assert_close(chosen[real], full[real])


def test_the_layers_gradients_are_right_and_choices_are_obeyed() -> None:
    attention, call = layer(TopBlocks(3, 2), kv_heads=2, position=Rotary()), Call(Places.run(0, 11))
    x = torch.randn(1, 11, M, requires_grad=True)
    choices = attention(x, call).choices
    assert torch.autograd.gradcheck(lambda x: attention(x, call).y, x)
    other = torch.where(choices >= 0, 0, -1).int()
    other[..., 1:] = -1
    obeyed = attention(x, call, choices=other)
    assert torch.equal(obeyed.choices, other)
    assert not torch.equal(obeyed.y, attention(x, call).y)


def decoder(attention: Attention) -> torch.nn.Module:
    torch.manual_seed(0)
    spec = Decoder("chooser", VOCAB, M, (Block((attention,)), Block((attention,))), Embedding())
    model = spec.build(streaming=True).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


ATTENTION = {
    "rotary": Attention(4, select=TopBlocks(4, 2), position=Rotary()),
    "grouped": Attention(4, kv_heads=2, select=TopBlocks(3, 1), position=Rotary()),
    "alibi": Attention(2, select=TopBlocks(5, 2), position=ALiBi()),
    "window": Attention(2, pattern=Causal() & Window(10), select=TopBlocks(4, 2), position=Rotary()),
    "single": Attention(2, select=TopBlocks(1, 3)),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_the_future_has_no_gradient_and_changes_nothing(name: str) -> None:
    model, seen = decoder(ATTENTION[name]), {}
    model.embedding.register_forward_hook(lambda m, i, out: seen.setdefault("x", out.requires_grad_()))
    inputs = torch.randint(0, VOCAB, (1, 40))
    logits = model(inputs).logits
    (gradient,) = torch.autograd.grad(logits[:, 21].sum(), seen["x"])
    assert not gradient[:, 22:].any()
    assert gradient[:, 21].any()
    other = inputs.clone()
    other[:, 22:] = (other[:, 22:] + 7) % VOCAB
    assert torch.equal(decoder(ATTENTION[name])(other).logits[:, :22], logits[:, :22])


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("cuts", [list(range(1, 37)), [1], [12], [4, 8, 20], [5, 23, 24]], ids=str)
@pytest.mark.parametrize("padded", [False, True])
def test_pieces_equal_the_whole(name: str, cuts: list[int], padded: bool) -> None:
    model, inputs = decoder(ATTENTION[name]), torch.randint(0, VOCAB, (4, 37))
    mask = torch.tensor(PADDED, dtype=torch.bool) if padded else torch.ones(4, 37, dtype=torch.bool)
    whole, state, pieces = model(inputs, mask=mask if padded else None).logits, None, []
    for start, stop in zip([0, *cuts], [*cuts, 37], strict=True):
        part = mask[:, start:stop] if padded else None
        out = model.step(inputs[:, start:stop], state, mask=part, logits_at=slice(None))
        pieces.append(out.logits)
        state = out.state
    torch.testing.assert_close(torch.cat(pieces, 1)[mask], whole[mask])


@pytest.mark.parametrize("causal", [True, False])
def test_a_row_alone_equals_the_row_in_a_batch(causal: bool) -> None:
    attention = ATTENTION["rotary"]
    kind = Decoder if causal else Encoder
    torch.manual_seed(0)
    model = kind("chooser", VOCAB, M, (Block((attention,)),), head=Tied()).build().eval()
    inputs, mask = torch.randint(0, VOCAB, (4, 37)), torch.tensor(PADDED, dtype=torch.bool)
    together = model(inputs, mask=mask).logits
    for row, real, logits in zip(inputs, mask, together, strict=True):
        torch.testing.assert_close(model(row[real][None]).logits[0], logits[real])


def test_rows_of_padding_alone_stay_finite() -> None:
    attention = layer(TopBlocks(4, 2))
    nothing = Places(torch.zeros(2, 20, dtype=torch.int64), torch.zeros(2, 20, dtype=torch.bool))
    assert attention(torch.randn(2, 20, M), Call(nothing)).y.isfinite().all()


@pytest.mark.parametrize(("select", "fix"), [(TopBlocks(block=0), "block=64"), (TopBlocks(count=0), "count=4")])
def test_blocks_of_nothing_are_refused(select: TopBlocks, fix: str) -> None:
    spec = Decoder("chooser", VOCAB, M, (Block((Attention(2, select=select),)),))
    with pytest.raises(ConfigError, match=fix):
        spec.build()
