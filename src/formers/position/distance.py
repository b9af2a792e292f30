"""Scores that change with the distance alone: ALiBi and T5's buckets."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from formers.places import Spots
from formers.position.core import Position, PositionLayer
from formers.spec.core import Site


class ALiBi(Position):
    """Scores fall by slope * distance, a fixed slope for each head. Press et al. 2021, arXiv:2108.12409.

    For h heads, a power of two, the slopes are 2^(-8/h), 2^(-16/h), ..., 2^-8. For other h they are those of the
    next lower power of two, then every second one of the next higher, as in the paper's code.
    """

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if not site.causal:
            what = "ALiBi is defined for causal attention only: its distance does not tell left from right"
            yield what, "position=T5Buckets()"

    def build(self, site: Site) -> PositionLayer:
        return ALiBiLayer(site.heads)


def alibi_slopes(heads: int) -> list[float]:
    """The slope of each head."""
    lower = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / lower) for i in range(lower)]
    between = [2 ** (-4 * (i + 1) / lower) for i in range(0, 2 * lower, 2)]
    return slopes + between[: heads - lower]


class ALiBiLayer(PositionLayer):
    biased = True

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads, self.slopes = heads, alibi_slopes(heads)

    def bias(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        slope = torch.tensor(self.slopes, device=head.device, dtype=torch.get_default_dtype())[head]
        return slope * (k.pos - q.pos)


class T5Buckets(Position):
    """A learned bias for each head and bucket of distances. Raffel et al. 2019, arXiv:1910.10683.

    Half of the buckets hold one distance each, the others ranges that grow to max_distance and beyond. Attention
    that looks both ways gives half of them to each side. Differs from T5: each layer has a table of its own.
    """

    buckets: int = 32
    max_distance: int = 128

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        least = 2 if site.causal else 4
        if self.buckets < least or self.buckets % least:
            yield (
                f"{self.buckets} buckets do not split evenly into near and far ones",
                f"buckets={max(least, self.buckets // least * least)}",
            )
        elif self.max_distance <= self.buckets // least:
            yield (
                f"a max_distance of {self.max_distance} leaves nothing for the far buckets",
                f"max_distance={4 * self.buckets}",
            )

    def build(self, site: Site) -> PositionLayer:
        return T5BucketsLayer(self, site.heads, site.causal)


class T5BucketsLayer(PositionLayer):
    biased = True

    def __init__(self, spec: T5Buckets, heads: int, causal: bool) -> None:
        super().__init__()
        self.spec, self.heads, self.causal = spec, heads, causal
        self.table = nn.Embedding(spec.buckets, heads)

    def bias(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        return self.table.weight[self.bucket(q.pos - k.pos), head]

    def bucket(self, distance: Tensor) -> Tensor:
        """distance: how far back the key stands; negative ahead."""
        if self.causal:
            return self._one_sided(distance.clamp(min=0), self.spec.buckets)
        half = self.spec.buckets // 2
        return self._one_sided(distance.abs(), half) + (distance < 0) * half

    def _one_sided(self, distance: Tensor, buckets: int) -> Tensor:
        near = buckets // 2
        ratio = torch.log(distance.clamp(min=near).float() / near) / math.log(self.spec.max_distance / near)
        far = near + (ratio * (buckets - near)).long()
        return torch.where(distance < near, distance, far.clamp(max=buckets - 1))
