"""How a stream becomes queries, keys and values, and how heads become a stream again."""

from typing import Any

from torch import Tensor, nn

from formers.init import ResidualLinear
from formers.places import Places
from formers.spec.core import Site, Spec


class Projection(Spec):
    """Built at a site with heads, kv_heads and head_dim."""

    def build(self, site: Site) -> "ProjectionLayer":
        raise NotImplementedError


class ProjectionLayer(nn.Module):
    """B batch, T tokens, M model width, H heads, K key heads, D head width.

    looks_back: queries, keys and values depend on earlier tokens too, as by a convolution, through `prepare`.
    """

    looks_back = False

    def prepare(self, x: Tensor, at: Places, past: Any) -> tuple[Tensor, Any]:
        """x (B, T, M) as the methods below take it, (B, T, any width), and what the next call is given as `past`."""
        return x, None

    def queries(self, x: Tensor) -> Tensor:
        """x (B, T, M) -> (B, H, T, D)."""
        raise NotImplementedError

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, M) -> keys and values, (B, K, T, D) each."""
        raise NotImplementedError

    def output(self, heads: Tensor) -> Tensor:
        """heads (B, H, T, D) -> (B, T, M)."""
        raise NotImplementedError


class Dense(Projection):
    """One matrix each for queries, keys, values and output."""

    bias: bool = True

    def build(self, site: Site) -> ProjectionLayer:
        return DenseLayer(self, site)


class DenseLayer(ProjectionLayer):
    def __init__(self, spec: Dense, site: Site) -> None:
        super().__init__()
        self.head_dim = site.head_dim
        self.q_proj = nn.Linear(site.dim, site.heads * site.head_dim, bias=spec.bias)
        self.k_proj = nn.Linear(site.dim, site.kv_heads * site.head_dim, bias=spec.bias)
        self.v_proj = nn.Linear(site.dim, site.kv_heads * site.head_dim, bias=spec.bias)
        self.out_proj = ResidualLinear(site.heads * site.head_dim, site.dim, bias=spec.bias)

    def queries(self, x: Tensor) -> Tensor:
        return self._split(self.q_proj(x))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._split(self.k_proj(x)), self._split(self.v_proj(x))

    def output(self, heads: Tensor) -> Tensor:
        return self.out_proj(heads.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)
