"""Routing: membership against plain loops, both forms against dense sums, what leaks and what does not, and learning."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from formers import MLP, Attention, Block, Causal, ConfigError, Decoder, Embedding, Encoder, SelfLast, SharedQK, Window
from formers.attention.centroids import Centroids, on_sphere
from formers.attention.clusters import ClusterPlan
from formers.attention.layer import AttentionLayer
from formers.attention.oracle import attend_dense
from formers.attention.routing import BalancedRule, Members, Routing, first_best
from formers.attention.tiles import attend_tiles
from formers.call import Call
from formers.parallel import Parallel
from formers.places import Places
from formers.spec import Site

H, D, M, T, VOCAB = 2, 8, 16, 37, 30
ALIKE: dict[str, Any] = {"projection": SharedQK(), "position": SelfLast(), "scale": 1.0}
APART: dict[str, Any] = {}
FORMS = {
    "strict": (Routing(4, 6), ALIKE),
    "balanced": (Routing(4, 6, balanced=True), ALIKE),
    "balanced apart": (Routing(4, 6, balanced=True, joint=False), APART),
    "balanced by length": (Routing(4, balanced=True), ALIKE),
}
PADDED = [[0] * 9 + [1] * 28, [1] * 37, [1] * 6 + [0] * 31, [1] * 10 + [0] * 8 + [1] * 19]
BOTH = pytest.mark.parametrize("causal", [True, False])
EVERY_FORM = pytest.mark.parametrize("form", FORMS)


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def layer(select: Routing | None, causal: bool = True, **fields: Any) -> AttentionLayer:
    built = Attention(H, select=select, **fields).build(Site(dim=M, causal=causal))
    assert isinstance(built, AttentionLayer)
    return built


def whole(length: int = T) -> Call:
    return Call(Places.run(0, length), remember=False)


def places(rows: list[list[int]]) -> Places:
    real = torch.tensor(rows, dtype=torch.bool)
    return Places((real.cumsum(1) - 1).clamp(min=0), real)


def model(select: Routing, fields: dict[str, Any], streaming: bool = False) -> Any:
    local = Attention(H, head_dim=D, pattern=Causal() & Window(5))
    routed = Attention(H, head_dim=D, select=select, **fields)
    block = Block((Parallel((local, routed)), MLP(24)))
    return Decoder("routed", VOCAB, M, (block, block)).build(streaming=streaming).eval()


# One cluster is everything.


@BOTH
@EVERY_FORM
def test_one_cluster_of_all_tokens_is_full_attention(form, causal):
    spec, fields = FORMS[form]
    routed = layer(spec.replace(clusters=1, window=T), causal, **fields)
    full = layer(None, causal, **fields)
    full.load_state_dict(routed.state_dict(), strict=False)
    x = torch.randn(2, T, M)
    torch.testing.assert_close(routed(x, whole()).y, full(x, whole()).y)


# Who is in a cluster, and who meets.


def brute_members(x: Tensor, centroids: Tensor, window: int | None, real: list[bool]) -> list[list[int]]:
    """Of x (T, D) and the centroids (C, D) of a head: the tokens of each cluster."""
    there = [t for t in range(len(x)) if real[t]]
    width = -(-len(there) // len(centroids)) if window is None else window
    normed = [(row - row.mean()) / row.var(unbiased=False).sqrt() for row in x]
    best = [sorted(there, key=lambda t: (-float(normed[t] @ centroid), t)) for centroid in centroids]
    return [sorted(ranked[:width]) for ranked in best]


@pytest.mark.parametrize("at", [Places.run(0, T), places(PADDED)], ids=["run", "padded"])
@pytest.mark.parametrize("window", [6, None, 100])
def test_balanced_members_are_those_of_a_plain_loop(at, window):
    rule = Routing(4, window, balanced=True, joint=False).build(Site(dim=M, heads=H, head_dim=D))
    assert isinstance(rule, BalancedRule)
    q, k = torch.randn(2, 4, H, T, D)
    chosen = rule.choose(q, k, Call(at), at).choices
    real = [[True] * T] * 4 if at.real is None else at.real.tolist()
    for side, told in ((q, chosen.queries), (k, chosen.keys)):
        for b in range(4):
            for h in range(H):
                ours = [[t for t in cluster if t >= 0] for cluster in told[b, h].tolist()]
                assert ours == brute_members(side[b, h], rule.centroids.centroids[h], window, real[b])


def test_of_equal_products_the_earlier_token_is_taken():
    assert first_best(torch.tensor([[1.0, 2.0, 2.0, 0.0, 2.0, 2.0]]), 3).sort().values.tolist() == [[1, 2, 4]]


def brute_mean(
    q: Tensor, k: Tensor, v: Tensor, members: Members, visible: Tensor, bias: Tensor, scale: float
) -> Tensor:
    """The mean over clusters, one dense attention each, for q (B, H, T, D)."""
    total, times = torch.zeros_like(v), torch.zeros(*v.shape[:3], 1)
    inner = members.queries if members.keys is None else members.keys
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for rows, columns in zip(members.queries[b, h], inner[b, h], strict=True):
                mine, theirs = torch.zeros(T, dtype=torch.bool), torch.zeros(T, dtype=torch.bool)
                mine[rows[rows >= 0]], theirs[columns[columns >= 0]] = True, True
                seen = mine[:, None] & theirs & visible
                part = attend_dense(q[b, h], k[b, h], v[b, h], seen, scale=scale, bias=bias)
                total[b, h] += part
                times[b, h] += seen.any(-1, keepdim=True)
    return total / times.clamp(min=1)


@BOTH
@pytest.mark.parametrize("at", [Places.run(0, T), places(PADDED)], ids=["run", "padded"])
@pytest.mark.parametrize("form", ["balanced", "balanced apart", "balanced by length"])
def test_a_token_in_several_clusters_gets_the_mean_and_one_in_none_gets_nothing(form, at, causal):
    spec, fields = FORMS[form]
    built = layer(spec, causal, **fields).eval()
    x = torch.randn(4, T, M)
    out = built(x, Call(at, remember=False))
    q, k, v = built.projection.together(x)
    charged = fields.get("position") is not None
    for b in range(4):
        visible = (at.pos[b % len(at.pos), None] <= at.pos[b % len(at.pos), :, None]) | (not causal)
        row = Members(*(part if part is None else part[b : b + 1] for part in out.choices))
        bias = torch.eye(T) * -1e5 if charged else torch.zeros(T, T)
        alone = (t[b : b + 1] for t in (q, k, v))
        mean = built.projection.output(brute_mean(*alone, row, visible, bias, built.scale))[0]
        real = slice(None) if at.real is None else at.real[b]
        torch.testing.assert_close(out.y[b][real], mean[real])
    times = torch.bincount(out.choices.queries[1, 0].flatten(), minlength=T)
    assert times.max() > 1 and (form == "balanced by length" or times.min() == 0)  # the test has both


def test_streamed_clusters_are_the_tiles_of_their_plan():
    built = layer(Routing(4, 6, balanced=True), **ALIKE)
    x = torch.randn(2, T, M, requires_grad=True)
    out, at = built(x, whole()), Places.run(0, T)
    q, k, v = built.projection.together(x)
    plan = ClusterPlan(out.choices.queries).tiles()
    tiled, _ = attend_tiles(
        q, k, v, plan, at=at, to=at, pattern=Causal(), position=built.position, scale=1.0, dropout=0.0
    )
    other = built.projection.output(tiled)
    torch.testing.assert_close(out.y, other)
    slope = torch.randn_like(other)
    torch.testing.assert_close(torch.autograd.grad(out.y, x, slope)[0], torch.autograd.grad(other, x, slope)[0])


@BOTH
@pytest.mark.parametrize("window", [1, 6, 70])
@pytest.mark.parametrize("at", [Places.run(0, T), places(PADDED)], ids=["run", "padded"])
def test_strict_queries_meet_the_latest_of_their_cluster(at, window, causal):
    built = layer(Routing(3, window), causal, **ALIKE).eval()
    x = torch.randn(4, T, M)
    out = built(x, Call(at, remember=False))
    q, k, v = built.projection.together(x)
    rule = built.select
    cluster = (on_sphere(q) @ rule.centroids.centroids.mT).argmax(-1)
    seen = torch.zeros(4, H, T, T, dtype=torch.bool)
    for b, h, t in [(b, h, t) for b in range(4) for h in range(H) for t in range(T)]:
        alike = [s for s in range(T) if cluster[b, h, s] == cluster[b, h, t] and (at.real is None or at.real[b, s])]
        before, after = [s for s in alike if s <= t], [s for s in alike if s > t]
        seen[b, h, t, before[-window:] + ([] if causal else after[: window - 1])] = True
    dense = built.projection.output(attend_dense(q, k, v, seen, scale=1.0, bias=torch.eye(T) * -1e5))
    real = torch.ones(4, T, dtype=torch.bool) if at.real is None else at.real
    torch.testing.assert_close(out.y[real], dense[real])


# What later tokens may change.


def test_published_clusters_leak_and_strict_ones_do_not():
    x = torch.randn(1, T, M)
    later = x.clone()
    later[:, 25:] = torch.randn(1, T - 25, M)
    changed = {}
    for form, (spec, fields) in FORMS.items():
        built = layer(spec, **fields).eval()
        moved = (built(x, whole()).y - built(later, whole()).y)[:, :25]
        changed[form] = int((moved.abs().amax(-1) > 1e-9).sum())
    assert changed.pop("strict") == 0
    assert min(changed.values()) > 5, "the published selection is expected to leak: is it still the published one?"


def test_strict_outputs_have_no_gradient_by_later_inputs():
    built = layer(Routing(4, 6), **ALIKE)
    x = torch.randn(1, T, M, requires_grad=True)
    for t in (0, 11, 30):
        (slope,) = torch.autograd.grad(built(x, whole()).y[0, t].sum(), x)
        assert slope[0, t + 1 :].abs().max() == 0 and slope[0, t].abs().max() > 0


@pytest.mark.parametrize("cut", [[1] * T, [20] + [1] * 17, [5, 30, 2]])
@pytest.mark.parametrize("padded", [False, True])
def test_strict_decoding_equals_one_pass(cut, padded):
    built = model(Routing(4, 6), ALIKE, streaming=True)
    tokens = torch.randint(VOCAB, (4, T))
    mask = torch.tensor(PADDED, dtype=torch.bool) if padded else None
    full = built(tokens, mask=mask).logits
    state, parts, start = None, [], 0
    for length in cut:
        here = slice(start, start + length)
        out = built(tokens[:, here], state, mask=None if mask is None else mask[:, here])
        state, start = out.state, start + length
        parts.append(out.logits)
    real = torch.ones(4, T, dtype=torch.bool) if mask is None else mask
    torch.testing.assert_close(torch.cat(parts, 1)[real], full[real])


@pytest.mark.parametrize("form", ["balanced", "balanced apart", "balanced by length"])
def test_a_step_of_a_balanced_decoder_is_a_pass_over_the_tokens_so_far(form):
    spec, fields = FORMS[form]
    built = layer(spec, **fields).eval()
    x = torch.randn(2, T, M)
    before = built(x[:, :30], Call(Places.run(0, 30)))
    step = built(x[:, 30:33], Call(Places.run(30, 3)), before.state)
    torch.testing.assert_close(step.y, built(x[:, :33], whole(33)).y[:, 30:])


@EVERY_FORM
def test_padded_rows_are_rows_alone(form):
    built = model(*FORMS[form])
    tokens, mask = torch.randint(VOCAB, (4, T)), torch.tensor(PADDED, dtype=torch.bool)
    together = built(tokens, mask=mask).logits
    for row, real, logits in zip(tokens, mask, together, strict=True):
        torch.testing.assert_close(logits[real], built(row[real][None]).logits[0])


# Heads side by side.


def test_two_attentions_in_parallel_are_one_of_all_heads():
    halves = Parallel((Attention(1, head_dim=D), Attention(1, head_dim=D))).build(Site(dim=M, causal=True))
    one = layer(None)
    with torch.no_grad():
        for name in ("q_proj", "k_proj", "v_proj"):
            parts = [getattr(half.projection, name) for half in halves.layers]
            getattr(one.projection, name).weight.copy_(torch.cat([part.weight for part in parts]))
            getattr(one.projection, name).bias.copy_(torch.cat([part.bias for part in parts]))
        parts = [half.projection.out_proj for half in halves.layers]
        one.projection.out_proj.weight.copy_(torch.cat([part.weight for part in parts], 1))
        one.projection.out_proj.bias.copy_(parts[0].bias + parts[1].bias)
    x = torch.randn(2, T, M)
    torch.testing.assert_close(halves(x, whole()).y, one(x, whole()).y)
    call = Call(Places.run(0, 20))
    skipped, run = halves.skip(x[:, :20], call), halves(x[:, :20], call).state
    for a, b in zip(skipped, run, strict=True):
        torch.testing.assert_close(a.k.view, b.k.view)


def test_nothing_in_parallel_is_refused():
    with pytest.raises(ConfigError, match="no layers stand side by side"):
        Decoder("empty", VOCAB, M, (Block((Parallel(()),)),)).build()


# Losses, records, and learning.


@EVERY_FORM
def test_no_call_changes_a_buffer(form):
    built = model(*FORMS[form])
    tokens, before = torch.randint(VOCAB, (2, T)), {name: b.clone() for name, b in built.named_buffers()}
    out = built(tokens)
    assert before and not out.records and not out.losses, "evaluation has nothing to learn from"
    out = built.train()(tokens)
    (out.logits.sum() + out.losses["commitment"]).backward()
    assert out.records
    for name, buffer in built.named_buffers():
        assert torch.equal(buffer, before[name]) and not buffer.requires_grad


@EVERY_FORM
@pytest.mark.parametrize("at", [Places.run(0, T), places(PADDED)], ids=["run", "padded"])
def test_commitment_is_the_mean_squared_distance_and_reaches_queries_and_keys(form, at):
    spec, fields = FORMS[form]
    built = layer(spec.replace(commitment=0.5), **fields)
    x = torch.randn(4, T, M)
    out = built(x, Call(at, remember=False))
    q, k, _ = built.projection.together(x)
    real = torch.ones(4, T, dtype=torch.bool) if at.real is None else at.real
    apart, seen = [], 0
    for side in (q,) if spec.joint else (q, k):
        normed = F.layer_norm(side, (D,), eps=1e-9)
        to = built.select.centroids.centroids
        nearest = (normed @ to.mT).argmax(-1)
        mine = torch.stack([to[h][nearest[:, h]] for h in range(H)], 1)
        apart.append((normed - mine).square().sum(-1).transpose(1, 2)[real])
        seen += int(real.sum())
    expected = 0.5 * torch.cat(apart).mean()
    torch.testing.assert_close(out.losses["commitment"], expected, rtol=1e-6, atol=1e-6)
    weights = list(built.projection.parameters())[: 1 if spec.joint else 4]
    ours = torch.autograd.grad(out.losses["commitment"], weights, retain_graph=True, allow_unused=True)
    theirs = torch.autograd.grad(expected, weights, allow_unused=True)
    assert any(grad is not None and grad.abs().max() > 0 for grad in ours)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    (lesson,) = out.records[built.select.centroids.lesson]
    assert lesson[..., -1].sum(1).tolist() == [seen] * H and not lesson.requires_grad


def test_some_heads_at_a_time_come_to_the_same():
    spec, fields = FORMS["strict"]
    built, whole_one = layer(spec, heads_at_once=1, **fields), layer(spec, **fields)
    whole_one.load_state_dict(built.state_dict())
    x = torch.randn(2, T, M)
    parts, one = built(x, whole()), whole_one(x, whole())
    torch.testing.assert_close(parts.y, one.y)
    torch.testing.assert_close(parts.losses["commitment"], one.losses["commitment"])
    name = built.select.centroids.lesson
    torch.testing.assert_close(torch.stack(parts.records[name]).sum(0), one.records[name][0])


@EVERY_FORM
def test_a_pass_with_the_choices_of_another_is_that_pass(form):
    spec, fields = FORMS[form]
    built = layer(spec.replace(decay=0.1), **fields)
    x = torch.randn(2, T, M)
    first = built(x, whole())
    built.select.centroids.centroids.copy_(torch.randn(H, 4, D))
    again = built(x, whole(), None, first.choices)
    torch.testing.assert_close(again.y, first.y)
    name = built.select.centroids.lesson
    torch.testing.assert_close(again.records[name], first.records[name])


def test_learning_is_the_moving_average_of_counts_and_sums():
    near = Centroids(3, 0.9, Site(dim=M, heads=H, head_dim=D))
    counts, sums = torch.ones(H, 3), near.centroids.clone()
    for _ in range(4):
        x = on_sphere(torch.randn(2, H, T, D))
        nearest = near.nearest(x, slice(None))
        counts, sums = 0.9 * counts, 0.9 * sums
        for b, h, t in [(b, h, t) for b in range(2) for h in range(H) for t in range(T)]:
            counts[h, nearest[b, h, t]] += 0.1
            sums[h, nearest[b, h, t]] += 0.1 * x[b, h, t]
        near.learn(near.lesson_of(near.tally(x, nearest, None), slice(None)))
        torch.testing.assert_close(near.centroids, sums / counts[..., None], rtol=1e-4, atol=1e-4)
    idle = Centroids(3, 0.5, Site(dim=M, heads=H, head_dim=D))
    before = idle.centroids.clone()
    for _ in range(60):  # long unused, and among others that are used: it stays finite, and is no longer than it was
        seen = torch.zeros(H, 3, D + 1)
        seen[:, 0, -1], seen[:, 0, :D] = 100.0, 100 * before[:, 0]
        idle.learn(seen)
    assert idle.centroids.isfinite().all() and (idle.centroids.norm(dim=-1) < 1.001 * before.norm(dim=-1)).all()


def test_centroids_come_to_the_middles_of_a_mixture():
    middles = on_sphere(torch.randn(H, 3, D))
    near = Centroids(3, 0.8, Site(dim=M, heads=H, head_dim=D))
    near.centroids.copy_(on_sphere(middles + 0.5 * torch.randn(H, 3, D)))
    near.sums.copy_(near.centroids)
    for _ in range(60):
        kind = torch.randint(3, (4, H, 50))
        at = middles.expand(4, -1, -1, -1).gather(2, kind[..., None].expand(-1, -1, -1, D))
        x = on_sphere(at + 0.1 * torch.randn_like(at))
        near.learn(near.lesson_of(near.tally(x, near.nearest(x, slice(None)), None), slice(None)))
    assert (near.centroids - middles).norm(dim=-1).max() < 0.1


# What is refused.


@pytest.mark.parametrize(
    ("select", "what"),
    [
        (Routing(0, 8), "0 clusters hold nothing"),
        (Routing(4, 0), "a window of 0 tokens"),
        (Routing(4), "must not depend on the length"),
        (Routing(4, 8, joint=False), "belong to one cluster"),
        (Routing(4, 8, decay=1.0), "moving averages keep"),
        (Routing(4, 8, commitment=-1.0), "would drive tokens away"),
    ],
)
def test_bad_values_are_refused(select, what):
    with pytest.raises(ConfigError, match=what):
        model(select, ALIKE if select.joint else APART)


def test_separate_queries_and_keys_are_refused_with_the_mend():
    with pytest.raises(ConfigError, match=r"projection=SharedQK\(\), position=SelfLast\(\)"):
        model(Routing(4, 8), APART)


def test_the_published_form_is_refused_where_steps_must_equal_one_pass():
    with pytest.raises(ConfigError, match=r"cannot equal one pass(.|\n)*fix: "):
        model(Routing(4, 8, balanced=True), ALIKE, streaming=True)


def test_an_encoder_may_have_either_form():
    tokens = torch.randint(VOCAB, (2, T))
    for select, fields in FORMS.values():
        block = Block((Attention(H, select=select, **fields), MLP(24)))
        built = Encoder("routed", VOCAB, M, (block,), Embedding()).build().eval()
        changed = tokens.clone()
        changed[:, -1] = (changed[:, -1] + 1) % VOCAB
        moved = (built(tokens).hidden - built(changed).hidden).abs().amax(-1)[:, :-1]
        assert moved.max() > 1e-6, "an encoder sees both sides"
