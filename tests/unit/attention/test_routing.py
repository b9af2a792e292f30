"""Routing: membership against plain loops, both forms against dense sums, heads side by side, and what is refused."""

import pytest
import torch
from routed import ALIKE, APART, BOTH, EVERY_FORM, FORMS, PADDED, VOCAB, D, H, M, T, layer, model, places, whole
from torch import Tensor

from formers import MLP, Attention, Block, Causal, ConfigError, Decoder, Embedding, Encoder
from formers.attention.centroids import on_sphere
from formers.attention.clusters import ClusterPlan
from formers.attention.oracle import attend_dense
from formers.attention.routing import BalancedRule, Members, Routing, first_best
from formers.attention.tiles import attend_tiles
from formers.call import Call
from formers.parallel import Parallel
from formers.places import Places
from formers.spec import Site

pytestmark = pytest.mark.usefixtures("float64")


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
