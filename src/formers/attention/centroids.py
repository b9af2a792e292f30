"""Centroids that move to where queries and keys are, by moving averages of what they saw instead of by gradient."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.spec.core import Site

EPS = 1e-9  # of the variance: vectors that are not all zero come to the sphere, however short they are
SMOOTHING = 1e-5  # tokens that every centroid is credited with, so that none divides by zero
SLIVER = 1e-3  # of a token: what each centroid begins as
IDLE = 0.1  # a centroid with less than this share of an even number of tokens is idle
PATIENCE = 10  # updates in a row after which an idle centroid gets half of a cluster
PIECE = 1 << 16  # tokens whose products with all centroids are held at a time


class Centroids(nn.Module):
    """`count` centroids for each head, in buffers that no call changes: `learn` moves them, after an update.

    centroids (H, C, D): the means of their tokens, which lie inside the sphere. Tokens are compared with their
    directions: the product with the mean itself would favour clusters whose tokens are alike. counts (H, C), sums
    (H, C, D): moving averages of how many tokens an update gives to a centroid, and of their sum; they begin as next to
    nothing, so that the first update moves centroids from where they were drawn to where its tokens are. idle (H, C),
    int32: for how many updates in a row a centroid has had hardly any tokens.

    Tokens move while a model learns, and all the same way: the centroid that is ahead of the others comes to have all
    of them, and the others, which nothing moves, stay behind for good. So whoever is idle gets half of a large cluster.
    """

    centroids: Tensor
    counts: Tensor
    sums: Tensor
    idle: Tensor

    def __init__(self, count: int, decay: float, site: Site) -> None:
        super().__init__()
        self.decay = decay
        self.lesson = "clusters " + ".".join(map(str, site.path))
        drawn = on_sphere(torch.randn(site.heads, count, site.head_dim))
        self.register_buffer("centroids", drawn)
        self.register_buffer("counts", torch.full((site.heads, count), SLIVER))
        self.register_buffer("sums", SLIVER * drawn)
        self.register_buffer("idle", torch.zeros(site.heads, count, dtype=torch.int32))

    def similarity(self, x: Tensor, heads: slice) -> Tensor:
        """Products (B, H, C, T) of vectors x (B, H, T, D) on the sphere with the centroids' directions, of these heads."""
        with torch.autocast(x.device.type, enabled=False):
            return self._directions(x, heads) @ x.mT

    def nearest(self, x: Tensor, heads: slice) -> Tensor:
        """The centroid (B, H, T), int32, nearest to each of x (B, H, T, D) on the sphere."""
        with torch.autocast(x.device.type, enabled=False):
            to = self._directions(x, heads).mT
            return torch.cat([(part @ to).argmax(-1).int() for part in x.split(PIECE, 2)], 2)

    def _directions(self, x: Tensor, heads: slice) -> Tensor:
        return on_sphere(self.centroids[heads]).to(x.dtype)

    def tally(self, x: Tensor, nearest: Tensor, real: Tensor | None) -> Tensor:
        """(h, C, D + 1) for the h heads of tokens x (B, h, T, D): the sum of each centroid's real tokens, with a
        gradient, and behind it how many they are."""
        some, width = x.shape[1], x.shape[3]
        count = self.counts.shape[1]
        first = torch.arange(some, device=x.device)[:, None] * count
        rows = (nearest + first).flatten()
        weights = x.new_ones(x.shape[:3]) if real is None else real[:, None].expand(-1, some, -1).to(x.dtype)
        told = x if real is None else x * weights[..., None]
        sums = x.new_zeros(some * count, width).index_add(0, rows, told.reshape(-1, width))
        counts = x.new_zeros(some * count).index_add(0, rows, weights.flatten())
        return torch.cat([sums, counts[:, None]], -1).unflatten(0, (some, count))

    def distance(self, tally: Tensor, heads: slice) -> Tensor:
        """The mean of |x - centroid|^2 over the tokens of a tally and all heads, as far as these heads go; a scalar.

        It has a gradient by the tokens, and none by the centroids. On the sphere |x|^2 is the width, so that the sums
        of tokens say it all.
        """
        to, sums, counts = self.centroids[heads].to(tally.dtype), tally[..., :-1], tally[..., -1]
        lengths = to.shape[-1] + to.square().sum(-1)
        apart = (counts * lengths - 2 * (to * sums).sum(-1)).sum((0, 1))
        return apart / (counts[0].sum().clamp(min=1) * self.centroids.shape[0])

    def lesson_of(self, tally: Tensor, heads: slice) -> Tensor:
        """What `learn` is given, (H, C, D + 1), of a tally of these heads. Lessons add up."""
        seen = tally.new_zeros(*self.counts.shape, tally.shape[-1])
        seen[heads] = tally.detach()
        return seen

    @torch.no_grad()
    def learn(self, seen: Tensor) -> None:
        """Move to the moving averages with what one update saw, a sum of lessons; counts by Laplace smoothing, as the
        codes of VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937, appendix A.1). Then put the idle to work."""
        sums, counts = seen[..., :-1], seen[..., -1]
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        total = self.counts.sum(-1, keepdim=True)
        smoothed = (self.counts + SMOOTHING) * total / (total + self.counts.shape[1] * SMOOTHING)
        self.centroids.copy_(self.sums / smoothed[..., None])
        self._put_to_work(sums, counts)

    def _put_to_work(self, sums: Tensor, counts: Tensor) -> None:
        """Split large clusters of this update for those that have been idle long enough: the idlest gets half of the
        largest. Both begin anew, on either side of the mean of its tokens, on the line to where the idle one stood."""
        even, some = counts.mean(-1, keepdim=True), counts.shape[1] // 2
        self.idle.copy_(torch.where(counts < IDLE * even, self.idle + 1, 0))
        waiting = self.idle >= PATIENCE
        order = counts.masked_fill(waiting, -1).argsort(dim=-1, stable=True)
        idle, large = order[:, :some], order.flip(-1)[:, :some]
        head = torch.arange(len(order), device=order.device)[:, None]
        split = waiting[head, idle] & (counts[head, large] > even)
        self.idle.masked_fill_(waiting, 0)  # who got nothing waits as long again: splits in a row unsettle
        half = counts[head, large, None].clamp(min=1) / 2
        middle = sums[head, large] / (2 * half)
        aside = self._aside(middle, self.centroids[head, idle])
        begun = half * (1 - self.decay)
        for which, mean in ((idle, middle + aside), (large, middle - aside)):
            for kept, fresh in ((self.centroids, mean), (self.counts[..., None], begun), (self.sums, begun * mean)):
                kept[head, which] = torch.where(split[..., None], fresh, kept[head, which])

    def _aside(self, middle: Tensor, towards: Tensor) -> Tensor:
        """A step from the mean of a cluster, square to it, as long as its tokens spread in a direction."""
        length = middle.square().sum(-1, keepdim=True)
        aside = towards - middle * (towards * middle).sum(-1, keepdim=True) / length.clamp(min=EPS)
        spread = (1 - length / middle.shape[-1]).clamp(min=0).sqrt()
        return spread * F.normalize(aside, dim=-1)


def on_sphere(x: Tensor) -> Tensor:
    """Vectors (..., D), layer-normed without scale and bias: onto a sphere of radius sqrt(D); in fp32 or better."""
    return F.layer_norm(x.to(torch.promote_types(x.dtype, torch.float32)), x.shape[-1:], eps=EPS)
