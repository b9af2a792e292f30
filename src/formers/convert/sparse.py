"""The sparse counterpart of a dense decoder, as a spec. Scaling Transformers, arXiv:2111.12763."""

from dataclasses import dataclass

from formers.attention import Attention, Dense, MultConv
from formers.call import Layer
from formers.convert.rewrite import rewritten
from formers.errors import ConfigError
from formers.feedforward import GLU, MLP, FeedForward
from formers.model import Decoder
from formers.sparse import SparseFF
from formers.spec.core import Spec


@dataclass(frozen=True)
class Sparsity:
    """How sparse each kind of layer becomes.

    block: units of a feed-forward of which one is active, and rank: of what chooses it; block None leaves them dense.
    modules: of queries, keys and values, None leaves attention dense.
    """

    block: int | None = 64
    rank: int = 16
    modules: int | None = 8


def sparse_counterpart(spec: Spec, sparsity: Sparsity) -> Decoder:
    """The decoder with its dense feed-forwards and projections made sparse, wherever in its depth they stand.

    A feed-forward keeps its number of units, a gated one its number of parameters; both are rounded up to whole blocks.
    Raises ConfigError for a model that is no decoder or has nothing that could become sparse.
    """
    if not isinstance(spec, Decoder):
        raise ConfigError(
            f"{type(spec).__name__} {getattr(spec, 'name', '')} is no Decoder, and only those are converted"
        )
    blocks = rewritten(spec.blocks, lambda layer: _sparse(layer, sparsity))
    if blocks == spec.blocks:
        raise ConfigError(
            f"{spec.name} has no dense layer that is to become sparse: give --block 64 for feed-forwards, "
            "--modules 8 for attention, and a model with an MLP, a GLU or Attention(projection=Dense())"
        )
    return spec.replace(name=f"sparse_{spec.name}", blocks=blocks)


def _sparse(layer: Layer, sparsity: Sparsity) -> Layer:
    """The layer, sparse where it was dense."""
    if isinstance(layer, FeedForward) and sparsity.block is not None:
        return _feed_forward(layer, sparsity.block, sparsity.rank)
    if isinstance(layer, Attention) and sparsity.modules is not None:
        return _attention(layer, sparsity.modules)
    return layer


def _feed_forward(dense: FeedForward, block: int, rank: int) -> Layer:
    if type(dense) not in (MLP, GLU):
        return dense
    units = dense.hidden * 3 // 2 if isinstance(dense, GLU) else dense.hidden
    return SparseFF(-(-units // block) * block, block, rank, dropout=dense.dropout, chunk=dense.chunk)


def _attention(dense: Attention, modules: int) -> Layer:
    if type(dense.projection) is not Dense or dense.select is not None:
        return dense
    return dense.replace(projection=MultConv(modules), kv_heads=None, heads_at_once=None)
