"""A trained model as a Longformer, arXiv:2004.05150: windows in place of full attention, and global tokens."""

from typing import Any

from torch import Tensor

from formers.attention import Attention, Causal, Dense, Window
from formers.attention.longformer import LongformerAttention
from formers.call import Layer
from formers.convert.longer import with_positions
from formers.convert.rewrite import require_usual, rewritten
from formers.errors import ConfigError
from formers.memory import KeepAll
from formers.model import Encoder, on_meta

WINDOW = 512  # of the published models: so many tokens in all, half of them on either side


def longformer(spec: Any, weights: dict[str, Tensor], length: int) -> tuple[Any, dict[str, Tensor]]:
    """An encoder with windows of 512 tokens and global tokens, or a decoder whose tokens look 512 tokens back.

    The projections of global tokens begin as those of all others, and positions are extended by copying. Texts that
    fit into half a window (a decoder's: into the window) and have no global token are read as before.
    """
    spec, weights = with_positions(spec, weights, length)
    change = _seeing if isinstance(spec, Encoder) else _looking_back
    blocks = rewritten(spec.blocks, lambda layer: change(layer) if isinstance(layer, Attention) else layer)
    new = spec.replace(blocks=blocks)
    return new, weights | _global_projections(new, weights)


def _seeing(old: Attention) -> Layer:
    """An encoder's attention with windows and global tokens."""
    projection: Any = old.projection
    free = ("head_dim", "position") + (("projection",) if type(projection) is Dense else ())
    require_usual(old, "global tokens", "Dense projections", *free)
    window = Window(WINDOW // 2 + 1)
    return LongformerAttention(old.heads, window, old.head_dim, old.position, projection, old.dropout)


def _looking_back(old: Attention) -> Layer:
    """A decoder's attention with a window."""
    if old.pattern not in (None, Causal()) or old.select is not None or not isinstance(old.memory, KeepAll):
        raise ConfigError(
            f"{old!r} does not look at all of the past, so a window is not what it would be as Longformer"
        )
    return old.replace(pattern=Causal() & Window(WINDOW))


def _global_projections(new: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of q, k and v for every layer with global tokens."""
    found = {}
    for name in on_meta(new).state_dict():
        for letter in "qkv":
            own, usual = f".{letter}_global.", f".projection.{letter}_proj."
            if own in name and name not in weights:
                found[name] = weights[name.replace(own, usual)].clone()
    return found
