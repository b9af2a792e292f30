"""Tokens that were retrieved for each place of a text, and the gate by which a language model takes them in."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.call import Call, Layer, Out
from formers.norm import Norm
from formers.products import Matrix
from formers.spec.core import Site

GATE = "gate"  # the name of the record


class RetrievalGate(Layer):
    """Between a model's own last vector h and tokens that were found for its place. SPALM, arXiv:2102.02557, section 3.2.

        m = sum_i softmax_i(y_i · h) y_i,   g = sigmoid(w · h),   z = (1 - g) m + g h

    y_i are rows of the model's own table of token vectors, so they learn with it; the softmax is not scaled, and how far
    away a neighbour was found does not count. It stands behind the last block of a decoder without a last norm and with a
    tied head, which reads z: p = softmax(z W^T). Where nothing was found z is h, and the model the plain one.

    norm: of what it reads; None where the last block has normalised it, as a post-norm block does. What was found comes
    into the call as `Call.retrieved`. Leaves g, (B, T), as the record "gate" where anything was looked for.
    """

    norm: Norm | None = None

    @property
    def norms_itself(self) -> bool:
        return True

    def build(self, site: Site) -> nn.Module:
        return RetrievalGateLayer(self, site)


class RetrievalGateLayer(nn.Module):
    def __init__(self, spec: RetrievalGate, site: Site) -> None:
        super().__init__()
        self.norm = spec.norm.build(site) if spec.norm else None
        self.gate = Matrix(site.dim, 1, bias=False)

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        """Raises ValueError for tokens that were retrieved for other places than those of x."""
        h = x if self.norm is None else self.norm(x)
        if call.retrieved is None:
            return Out(h)
        if call.table is None or call.retrieved.shape[:2] != x.shape[:2]:
            raise ValueError(
                f"retrieved tokens {tuple(call.retrieved.shape)} do not fit places {tuple(x.shape[:2])}: "
                "give (B, T, k) ids, -1 for none"
            )
        m, some = _weighted(h, call.retrieved, call.table)
        g = torch.where(some, self.gate(h).sigmoid(), 1)
        return Out((1 - g) * m + g * h, records={GATE: (g[..., 0],)})

    def skip(self, x: Tensor, call: Call, state: Any = None) -> None:
        """Nothing is remembered."""


def _weighted(h: Tensor, ids: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (B, T, M) of the vectors of ids (B, T, k), weighted by their products with h; and where there is any."""
    found = ids >= 0
    some = found.any(-1, keepdim=True)
    y = F.embedding(ids.clamp(min=0), table)
    scores = (y @ h[..., None])[..., 0].masked_fill(~found & some, float("-inf"))
    return (scores.softmax(-1)[..., None, :] @ y)[..., 0, :], some
