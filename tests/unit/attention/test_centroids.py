"""Centroids: the loss that draws tokens to them, the record they learn from, and how they learn."""

import pytest
import torch
from routed import EVERY_FORM, FORMS, PADDED, VOCAB, D, H, M, T, layer, model, places, whole
from torch import Tensor
from torch.nn import functional as F

from formers.attention.centroids import IDLE, PATIENCE, SLIVER, Centroids, on_sphere
from formers.call import Call
from formers.places import Places
from formers.spec import Site

pytestmark = pytest.mark.usefixtures("float64")


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


def teach(near: Centroids, x: Tensor) -> Tensor:
    """One update by tokens (B, H, T, D) on the sphere; what they were: the centroid of each."""
    nearest = near.nearest(x, slice(None))
    near.learn(near.lesson_of(near.tally(x, nearest, None), slice(None)))
    return nearest


def test_learning_is_the_moving_average_of_counts_and_sums():
    near = Centroids(3, 0.9, Site(dim=M, heads=H, head_dim=D))
    counts, sums = torch.full((H, 3), SLIVER), SLIVER * near.centroids
    for _ in range(4):
        x = on_sphere(torch.randn(2, H, T, D))
        nearest = teach(near, x)
        counts, sums = 0.9 * counts, 0.9 * sums
        for b, h, t in [(b, h, t) for b in range(2) for h in range(H) for t in range(T)]:
            counts[h, nearest[b, h, t]] += 0.1
            sums[h, nearest[b, h, t]] += 0.1 * x[b, h, t]
        torch.testing.assert_close(near.centroids, sums / counts[..., None], rtol=1e-4, atol=1e-4)


def test_the_first_update_moves_centroids_to_where_its_tokens_are():
    near = Centroids(3, 0.999, Site(dim=M, heads=H, head_dim=D))
    x = on_sphere(torch.randn(20, H, T, D))
    nearest = teach(near, x)
    for h in range(H):
        for cluster in range(3):
            mean = x[:, h][nearest[:, h] == cluster].mean(0)
            torch.testing.assert_close(near.centroids[h, cluster], mean, rtol=0.02, atol=0.02)


# Idle centroids.


def one_way(tokens: int) -> Tensor:
    """Tokens (4, H, T, D) that point nearly one way."""
    return on_sphere(on_sphere(torch.randn(H, 1, D)) + 0.1 * torch.randn(4, H, tokens, D))


def test_tokens_that_point_one_way_come_to_fill_all_clusters():
    near, x = Centroids(8, 0.99, Site(dim=M, heads=H, head_dim=D)), one_way(100)
    used = [near.nearest(x, slice(None)).unique().numel()]
    for _ in range(6 * PATIENCE):
        teach(near, x)
        used.append(near.nearest(x, slice(None)).unique().numel())
    assert max(used[:PATIENCE]) <= 3, "the tokens are to begin in few clusters"
    tally = near.tally(x, near.nearest(x, slice(None)), None)[..., -1]
    assert tally.min() > IDLE * 400 / 8


def test_an_idle_centroid_waits_and_then_gets_half_of_the_largest_cluster_and_no_other_changes():
    near = Centroids(4, 0.9, Site(dim=M, heads=H, head_dim=D))
    kinds = on_sphere(torch.randn(H, 4, D))
    near.centroids.copy_(kinds)
    near.sums.copy_(SLIVER * kinds)
    sizes = torch.tensor([60, 20, 20, 0])
    x = on_sphere(kinds.repeat_interleave(sizes, 1)[None] + 0.05 * torch.randn(1, H, 100, D))
    which = torch.arange(4).repeat_interleave(sizes).expand(1, H, -1)
    lesson = near.lesson_of(near.tally(x, which, None), slice(None))
    for _ in range(PATIENCE - 1):
        near.learn(lesson)
    assert torch.equal(near.idle, torch.tensor([0, 0, 0, PATIENCE - 1], dtype=torch.int32).expand(H, 4))
    torch.testing.assert_close(near.centroids[:, 3], kinds[:, 3], rtol=0.1, atol=0.1)
    near.learn(lesson)
    assert not near.idle.any()
    counts = near.tally(x, near.nearest(x, slice(None)), None)[..., -1]
    assert bool((counts[:, [1, 2]] == 20).all())
    assert bool((counts[:, [0, 3]] >= 15).all()), "the largest was not halved, or nearly so"
    torch.testing.assert_close(near.centroids[:, [0, 3]].mean(1), x[0, :, :60].mean(1))


def test_clusters_of_unequal_size_that_are_all_in_use_are_left_alone():
    near = Centroids(3, 0.9, Site(dim=M, heads=H, head_dim=D))
    lesson = torch.zeros(H, 3, D + 1)
    for cluster, size in enumerate((80, 15, 5)):  # 5 of 100 is more than a tenth of a third
        lesson[:, cluster, -1], lesson[:, cluster, :D] = size, size * near.centroids[:, cluster]
    drawn = near.centroids.clone()
    for _ in range(3 * PATIENCE):
        near.learn(lesson)
    torch.testing.assert_close(near.centroids, drawn, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_updates_that_see_nothing_and_tokens_all_alike_do_no_harm(count):
    near = Centroids(count, 0.5, Site(dim=M, heads=H, head_dim=D))
    drawn = near.centroids.clone()
    for _ in range(2 * PATIENCE):
        near.learn(torch.zeros(H, count, D + 1))
    assert not near.idle.any()
    alike = drawn[:, :1].expand(4, H, 9, D)
    for _ in range(60):
        teach(near, alike)
    assert near.centroids.isfinite().all()
    torch.testing.assert_close(near.centroids[:, 0], drawn[:, 0], rtol=1e-3, atol=1e-3)


def test_what_is_idle_is_kept_in_checkpoints():
    assert {"centroids", "counts", "sums", "idle"} == set(
        Centroids(3, 0.9, Site(dim=M, heads=H, head_dim=D)).state_dict()
    )


def test_centroids_come_to_the_middles_of_a_mixture():
    middles = on_sphere(torch.randn(H, 3, D))
    near = Centroids(3, 0.8, Site(dim=M, heads=H, head_dim=D))
    near.centroids.copy_(on_sphere(middles + 0.5 * torch.randn(H, 3, D)))
    near.sums.copy_(SLIVER * near.centroids)
    for _ in range(60):
        kind = torch.randint(3, (4, H, 50))
        at = middles.expand(4, -1, -1, -1).gather(2, kind[..., None].expand(-1, -1, -1, D))
        teach(near, on_sphere(at + 0.1 * torch.randn_like(at)))
    assert (near.centroids - middles).norm(dim=-1).max() < 0.1
