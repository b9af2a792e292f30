"""A trained encoder as an ETC, arXiv:2004.08483: the same weights for a long input and for a global one."""

from typing import Any

import torch
from torch import Tensor

from formers.attention import Attention, Dense, GlobalLocal, GlobalLocalAttention
from formers.call import Layer
from formers.convert.longer import TABLE, with_positions
from formers.convert.rewrite import require_usual, rewritten
from formers.errors import ConfigError
from formers.model import Encoder, on_meta
from formers.position import LongOnly, NoPosition, RelativeLabels

RADIUS, REACH = 84, 12  # of the published models
OWN, SHARED = ".of_global.out_proj.", ".projection.out_proj."
SEGMENTS = "embedding.segments.weight"


def etc(spec: Any, weights: dict[str, Tensor], length: int) -> tuple[Any, dict[str, Tensor]]:
    """An encoder that reads `length` tokens through a radius of 84, and global tokens in front of them.

    Both inputs begin with the model's own projections, feed-forwards and norms; relative labels begin at 0. Absolute
    positions are extended by copying and stay with the long tokens, so that texts of up to 85 tokens without a global
    one are read as before. All long tokens are of the first segment, whose vector becomes part of their positions.

    Differs from the paper, which drops absolute positions: then nothing would tell order until labels are learned.
    """
    if not isinstance(spec, Encoder):
        raise ConfigError(f"{spec.name} is a {type(spec).__name__}: only an Encoder can be given a global input")
    spec, weights = with_positions(spec, weights, length)
    if spec.max_length is None and spec.embedding.segments:
        raise ConfigError(f"{spec.name} has segments and no absolute positions that could carry their vectors")
    blocks = rewritten(spec.blocks, lambda layer: _sided(layer) if isinstance(layer, Attention) else layer)
    new = spec.replace(blocks=blocks, embedding=spec.embedding.replace(segments=0))
    if spec.max_length is not None:
        new = new.replace(embedding=new.embedding.replace(position=LongOnly(spec.embedding.position)))
    return new, _weights(new, weights)


def _sided(old: Attention) -> Layer:
    """Attention of two inputs in the place of attention to everything."""
    require_usual(old, "a global input", f"{Dense()!r} and {NoPosition()!r}")
    return GlobalLocalAttention(old.heads, GlobalLocal(RADIUS), RelativeLabels(REACH), dropout=old.dropout)


def _weights(new: Any, old: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor of the new model, of those of the old one."""
    old = dict(old)
    if TABLE in old:
        first = old.pop(SEGMENTS)[0] if SEGMENTS in old else 0
        old[TABLE.replace("table", "position.table")] = old.pop(TABLE) + first
    shapes = {name: tensor.shape for name, tensor in on_meta(new).state_dict().items()}
    like = next(iter(old.values()))
    return {name: old[name] if name in old else _beginning(name, shape, old, like) for name, shape in shapes.items()}


def _beginning(name: str, shape: torch.Size, old: dict[str, Tensor], like: Tensor) -> Tensor:
    """A global output projection begins as the usual one, labels at 0."""
    return old[name.replace(OWN, SHARED)].clone() if OWN in name else like.new_zeros(shape)
