"""Transformer-XL's relative positions: the four terms of its score."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from formers.cached import cached
from formers.places import Spots
from formers.position.absolute import sinusoid
from formers.position.core import Position, PositionLayer
from formers.products import Matrix
from formers.spec.core import Site

KEPT = 8192  # distances whose sinusoids are kept between calls


class TransformerXL(Position):
    """Dai et al. 2019, arXiv:1901.02860: (q_i + u) k_j + (q_i + v) W_R R(i - j), all of it over sqrt(D).

    R is the sinusoid of the distance, sines before cosines. clamp: distances beyond it count as it, for evaluating with a
    memory longer than in training; None: none do. Differs from the released code: u and v belong to each layer, as in
    the paper's equations, and are not shared by all of them.
    """

    clamp: int | None = None

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.clamp is not None and self.clamp < 1:
            yield f"clamp={self.clamp} would make all distances one", "clamp=400"

    def build(self, site: Site) -> PositionLayer:
        return TransformerXLLayer(self, site)


class TransformerXLLayer(PositionLayer):
    by_content = True

    def __init__(self, spec: TransformerXL, site: Site) -> None:
        super().__init__()
        self.clamp, self.dim, self.heads, self.causal = spec.clamp, site.dim, site.heads, site.causal
        self.r_proj = Matrix(site.dim, site.heads * site.head_dim, bias=False)
        self.u = nn.Parameter(torch.zeros(site.heads, site.head_dim))
        self.v = nn.Parameter(torch.zeros(site.heads, site.head_dim))

    def scores(self, q: Tensor, k: Tensor, q_at: Spots, k_at: Spots, head: Tensor) -> Tensor:
        content = (q + self.u[:, None, None]) @ k.mT
        q, q_pos, k_pos = q + self.v[:, None, None], q_at.pos, k_at.pos
        if _is_run(q_pos.mT) and _is_run(k_pos):
            return content + self._by_runs(q, q_pos, k_pos)
        distance = self._counted(q_pos - k_pos)
        nearest, furthest = int(distance.min()), int(distance.max())
        span = torch.arange(nearest, furthest + 1, device=q.device)
        by_place = self._by_distance(q, span[None])
        return content + by_place.gather(-1, (distance - nearest).expand_as(content))

    def _by_runs(self, q: Tensor, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """The scores by place of R queries and C keys, each side one position after the other in every tile.

        Then row i of the scores by distance, the furthest first, begins one column further right than row i - 1. Rows of
        one column more, read as if they had one less, are shifted so without a copy (the paper's appendix B).
        """
        rows, columns = q_pos.shape[-2], k_pos.shape[-1]
        furthest = q_pos[0, 0, :, -1, 0] - k_pos[0, 0, :, 0, 0]  # (N,)
        width = rows + columns - 1
        if self.causal:  # what stands later is masked: it may read anything, and needs no column
            width = max(columns, min(width, int(furthest.max()) + 1))
        steps = torch.arange(width + (rows > 1), device=q.device).clamp(max=width - 1)
        scores = self._by_distance(q, self._counted(furthest[:, None] - steps)).flatten(-2)
        return scores.narrow(-1, rows - 1, rows * width).unflatten(-1, (rows, width))[..., :columns]

    def _by_distance(self, q: Tensor, distance: Tensor) -> Tensor:
        """q W_R R(d): q (B, H, N, R, D) at the distances (1 or N, W) of each tile -> (B, H, N, R, W)."""
        batch, heads, tiles, rows, head_dim = q.shape
        nearest, furthest = int(distance.min()), int(distance.max())
        table = _sinusoids(nearest, furthest, self.dim, q.dtype, q.device)
        columns, order = distance.shape[-1], distance - nearest
        made = columns if len(distance) == 1 else len(table)
        if folding_pays(batch * tiles * rows, columns, made, self.dim, head_dim):
            project = self.r_proj.weight.unflatten(0, (heads, head_dim))  # (H, D, M)
            return (q @ project[:, None]) @ table[order].mT
        # Of one tile the sinusoids are put in order, and not what is made of them: they need no gradient back.
        every = self.r_proj(table[order[0]] if len(distance) == 1 else table)
        every = every.unflatten(-1, (heads, head_dim)).transpose(0, 1)  # (H, made, D)
        return q @ (every[:, None] if len(distance) == 1 else every[:, order]).mT

    def _counted(self, distance: Tensor) -> Tensor:
        """Distances as they count: with later keys masked, those ahead need no row of their own."""
        return distance.clamp(min=0 if self.causal else None, max=self.clamp) if self._bounded else distance

    @property
    def _bounded(self) -> bool:
        return self.causal or self.clamp is not None


def folding_pays(queries: int, columns: int, distances: int, dim: int, head_dim: int) -> bool:
    """Whether it takes less to bring so few queries to the sinusoids than the sinusoids of all distances to the heads."""
    return queries * (head_dim * dim + columns * (dim - head_dim)) < distances * dim * head_dim


def _is_run(pos: Tensor) -> bool:
    """Whether positions (1, 1, N, 1, L) follow each other in every tile, the same in all rows and heads."""
    if pos.shape[:2] != (1, 1):
        return False
    return pos.shape[-1] == 1 or bool((pos[..., 1:] - pos[..., :-1] == 1).all())


def _sinusoids(nearest: int, furthest: int, dim: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Of each distance from the nearest to the furthest, (distances, dim)."""
    if nearest < 0 or furthest >= KEPT:
        return _rows(torch.arange(nearest, furthest + 1, device=device), dim, dtype)
    return _kept(1 << furthest.bit_length(), dim, dtype, device)[nearest : furthest + 1]


@cached(8)
def _kept(count: int, dim: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return _rows(torch.arange(count, device=device), dim, dtype)


def _rows(distance: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    return sinusoid(distance, dim + dim % 2, "halves", dtype)[:, :dim]
