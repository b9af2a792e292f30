"""How a stream becomes queries, keys and values, and how heads become a stream again."""

from typing import Any

import torch
from torch import Tensor, nn

from formers.init import ResidualLinear
from formers.places import Places
from formers.products import Matrix, linear, products
from formers.spec.core import Site, Spec


class Projection(Spec):
    """Built at a site with heads, kv_heads and head_dim."""

    @property
    def shared(self) -> bool:
        """Keys are the queries, but for their length."""
        return False

    @property
    def within(self) -> bool:
        """Queries, keys and values may be of the same tokens, as in attention."""
        return True

    @property
    def across(self) -> bool:
        """Keys and values may be of other tokens than queries, which nobody prepares, as in cross-attention."""
        return True

    @property
    def output_looks_back(self) -> bool:
        """The output of a token depends on what earlier ones got, too."""
        return False

    def splits(self, site: Site) -> bool:
        """Whether `share` can give some heads alone, at this site."""
        return True

    def build(self, site: Site) -> "ProjectionLayer":
        raise NotImplementedError


class ProjectionLayer(nn.Module):
    """B batch, T tokens, M model width, H heads, K key heads, D head width.

    looks_back: queries, keys and values depend on earlier tokens too, as by a convolution, through `prepare`.
    output_looks_back: the output does, through `finish`.
    """

    looks_back = False
    output_looks_back = False

    def prepare(self, x: Tensor, at: Places, past: Any) -> tuple[Tensor, Any]:
        """x (B, T, M) as the methods below take it, (B, T, any width), and what the next call is given as `past`."""
        return x, None

    def queries(self, x: Tensor) -> Tensor:
        """x (B, T, M) -> (B, H, T, D)."""
        raise NotImplementedError

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, M) -> keys and values, (B, K, T, D) each."""
        raise NotImplementedError

    def together(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the same tokens, for projections that make them faster at once."""
        return self.queries(x), *self.keys_values(x)

    def output(self, heads: Tensor) -> Tensor:
        """heads (B, H, T, D) -> (B, T, M)."""
        raise NotImplementedError

    def finish(self, heads: Tensor, at: Places, past: Any) -> tuple[Tensor, Any]:
        """heads (B, H, T, D) -> the output (B, T, M), and what the next call is given as `past`."""
        return self.output(heads), None

    def share(self, heads: slice) -> "ProjectionLayer":
        """The projection of some heads alone, on the same parameters. Outputs of shares add up to the whole."""
        raise NotImplementedError


class Dense(Projection):
    """One matrix each for queries, keys, values and output."""

    bias: bool = True

    def build(self, site: Site) -> ProjectionLayer:
        return DenseLayer(self, site)


class DenseLayer(ProjectionLayer):
    def __init__(self, spec: Dense, site: Site) -> None:
        super().__init__()
        self.head_dim, self.group = site.head_dim, site.heads // site.kv_heads
        self.q_proj = Matrix(site.dim, site.heads * site.head_dim, bias=spec.bias)
        self.k_proj = Matrix(site.dim, site.kv_heads * site.head_dim, bias=spec.bias)
        self.v_proj = Matrix(site.dim, site.kv_heads * site.head_dim, bias=spec.bias)
        self.out_proj = ResidualLinear(site.heads * site.head_dim, site.dim, bias=spec.bias)

    def queries(self, x: Tensor) -> Tensor:
        return split_heads(self.q_proj(x), self.head_dim)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        k, v = (split_heads(t, self.head_dim) for t in products(x, self.k_proj, self.v_proj))
        return k, v

    def together(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (split_heads(t, self.head_dim) for t in products(x, self.q_proj, self.k_proj, self.v_proj))
        return q, k, v

    def output(self, heads: Tensor) -> Tensor:
        return self.out_proj(join_heads(heads))

    def share(self, heads: slice) -> ProjectionLayer:
        return DenseShare(self, heads)


class DenseShare(ProjectionLayer):
    """Some heads of a dense projection; it owns no parameters."""

    def __init__(self, whole: DenseLayer, heads: slice) -> None:
        super().__init__()
        self.head_dim = whole.head_dim
        keys = slice(heads.start // whole.group, -(-heads.stop // whole.group))
        self._q = LinearShare(whole.q_proj, heads, whole.head_dim)
        self._k = LinearShare(whole.k_proj, keys, whole.head_dim)
        self._v = LinearShare(whole.v_proj, keys, whole.head_dim)
        self._out = LinearShare(whole.out_proj, heads, whole.head_dim)

    def together(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (split_heads(t, self.head_dim) for t in rows_together(x, self._q, self._k, self._v))
        return q, k, v

    def output(self, heads: Tensor) -> Tensor:
        return self._out.columns(join_heads(heads))


class LinearShare:
    """The rows or the columns of a matrix that belong to some heads."""

    def __init__(self, whole: nn.Linear, heads: slice, head_dim: int) -> None:
        self._whole, self._part = whole, slice(heads.start * head_dim, heads.stop * head_dim)

    @property
    def row_weight(self) -> Tensor:
        """(heads * head_dim, M)."""
        return self._whole.weight[self._part]

    @property
    def row_bias(self) -> Tensor | None:
        """(heads * head_dim,), or None."""
        return None if self._whole.bias is None else self._whole.bias[self._part]

    def columns(self, x: Tensor) -> Tensor:
        """x (..., heads * head_dim) -> (..., M); the first share brings the bias."""
        bias = self._whole.bias if self._part.start == 0 else None
        return linear(x, self._whole.weight[:, self._part], bias)


def rows_together(x: Tensor, *shares: LinearShare) -> tuple[Tensor, ...]:
    """x (..., M) times the rows of each share, (..., heads * head_dim) each, in one product: one by one, a few rows at a
    time, each would leave a gradient of the size of x on the way back."""
    biases = [bias for share in shares if (bias := share.row_bias) is not None]
    weights = [share.row_weight for share in shares]
    joined = linear(x, torch.cat(weights), torch.cat(biases) if biases else None)
    return joined.split([len(weight) for weight in weights], -1)


def split_heads(x: Tensor, head_dim: int) -> Tensor:
    """(B, T, H * D) -> (B, H, T, D)."""
    return x.unflatten(-1, (-1, head_dim)).transpose(1, 2)


def join_heads(heads: Tensor) -> Tensor:
    """(B, H, T, D) -> (B, T, H * D)."""
    return heads.transpose(1, 2).flatten(2)
