"""What the two forms of Sinkhorn attention share."""

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from formers.attention.grid import Grid
from formers.attention.sorting import SortingNetwork
from formers.call import Call
from formers.places import Places
from formers.spec.core import Site

if TYPE_CHECKING:
    from formers.attention.sinkhorn import SinkhornAttention


class SortedAttention(nn.Module):
    """What both forms share. Below: B batch, H heads, D head width, T tokens, b a block's tokens, W and N blocks."""

    def __init__(self, spec: "SinkhornAttention", site: Site) -> None:
        super().__init__()
        self.spec, self.path = spec, site.path
        inner = spec.inside(site)
        self.scale = inner.head_dim**-0.5
        self.projection = spec.projection.build(inner)
        self.network = SortingNetwork(site.dim, spec.heads, inner.head_dim)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """q (R, t, H, D), k and v (R, s, H, D), mask broadcasts to (R, H, t, s) -> (R, t, H, D)."""
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        rate = self.spec.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate, scale=self.scale)
        return out.transpose(1, 2)

    def output(self, heads: Tensor) -> Tensor:
        """(B, T, H, D) -> (B, T, M)."""
        return self.projection.output(heads.transpose(1, 2))

    @property
    def noisy(self) -> bool:
        return self.training and self.spec.noise > 0


def grid_of(call: Call, to: Places, block: int) -> Grid:
    """The layout of this call's tokens behind those of earlier calls, the same for every layer."""
    return call.memo.once(("grid", block, call.at, to), lambda: Grid(call.at, to, block))
