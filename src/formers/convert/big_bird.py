"""A trained model as a Big Bird, arXiv:2007.14062: windows, global and random blocks in place of full attention."""

from itertools import count
from typing import Any

from torch import Tensor

from formers.attention import Attention, Causal, Everything
from formers.call import Layer
from formers.convert.longer import with_positions
from formers.convert.rewrite import rewritten
from formers.errors import ConfigError
from formers.family.big_bird import causal_pattern, itc_pattern
from formers.model import Encoder


def big_bird(spec: Any, weights: dict[str, Tensor], length: int) -> tuple[Any, dict[str, Tensor]]:
    """An encoder under Big Bird's pattern, or a decoder under its causal form, in blocks of 64 tokens.

    No weight is new, and positions are extended by copying. Texts of up to 3 blocks are read as before, since each is in
    the window of the others or the first; a decoder's of up to 7, of which 3 are a window, 1 the first, and 3 random.
    """
    spec, weights = with_positions(spec, weights, length)
    pattern_of = itc_pattern if isinstance(spec, Encoder) else causal_pattern
    layers = count()

    def change(layer: Layer) -> Layer:
        if not isinstance(layer, Attention):
            return layer
        _require_full(layer)
        changed: Layer = layer.replace(pattern=pattern_of(layer.heads, length, seed=next(layers)))
        return changed

    return spec.replace(blocks=rewritten(spec.blocks, change)), weights


def _require_full(attention: Attention) -> None:
    if attention.pattern not in (None, Everything(), Causal()) or attention.select is not None:
        raise ConfigError(
            f"{attention!r} does not look at everything, so in a Big Bird it would not see what it is used to"
        )
