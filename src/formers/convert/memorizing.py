"""A trained decoder with a memory in some of its layers, to be trained on: Memorizing Transformer, arXiv:2203.08913."""

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from formers.attention import Attention, Blocks, Causal, Dense
from formers.attention.memorizing import MemorizingAttention
from formers.call import Layer
from formers.convert.rewrite import rewritten
from formers.errors import ConfigError
from formers.memory import KeepAll
from formers.model import Decoder
from formers.spec.core import parts_within


def memorizing(
    model: nn.Module,
    layers: Collection[int],
    *,
    segment: int = 512,
    memory: int = 65_536,
    top_k: int = 32,
    gate: float = -4.0,
) -> tuple[Any, dict[str, Tensor]]:
    """The spec and the weights of a decoder whose attention layers of these numbers, counted from 1, have a memory.

    The layers read by the weights that they had. Attention that saw all of the past sees its segment and the one before,
    so that a stream of any length can be read. Texts of one segment are read exactly as before. In longer ones a head
    takes the share sigmoid(gate) from the memory at first, 1.8% of it at -4; the paper's 0 makes it half, which learns
    sooner and begins worse.

    Raises ConfigError for what is no decoder, for positions that end, layers that are not there, and layers that are not
    plain attention with a key head for each head.
    """
    spec: Any = model.spec
    _require_endless(spec)
    found = sum(isinstance(part, Attention) for part in parts_within(spec.blocks))
    if not layers or (beyond := [number for number in layers if not 1 <= number <= found]):
        told = f"no layer {beyond[0]}" if layers else "none was named"
        raise ConfigError(
            f"{spec.name} has attention layers 1 to {found}, and {told}: give --layer {max(1, 3 * found // 4)}"
        )
    if any(part.carries for part in parts_within(spec)):
        raise ConfigError(f"{spec.name} has a memory already: train it on, formers train --from ...")
    number = 0

    def change(layer: Any) -> Layer:
        nonlocal number
        if not isinstance(layer, Attention):
            return layer
        number += 1
        local = layer.replace(pattern=Causal() & Blocks(segment, before=1)) if _sees_all(layer) else layer
        return _with_memory(local, segment, memory, top_k, gate) if number in layers else local

    new = spec.replace(blocks=rewritten(spec.blocks, change), name=f"memorizing_{spec.name}")
    weights = dict(model.state_dict())
    return new, weights | _begun(new, weights)


def _require_endless(spec: Any) -> None:
    if not isinstance(spec, Decoder):
        raise ConfigError(f"{spec.name} is {type(spec).__name__}(...): only a Decoder has a past to remember")
    if spec.max_length is not None:
        raise ConfigError(
            f"{spec.name} has positions for {spec.max_length:,} tokens, and a memory is of what was read before them: "
            "take a model with relative positions, such as llama"
        )


def _sees_all(layer: Attention) -> bool:
    return layer.pattern in (None, Causal())


def _with_memory(old: Attention, segment: int, memory: int, top_k: int, gate: float) -> MemorizingAttention:
    plain = Attention(
        old.heads,
        head_dim=old.head_dim,
        pattern=old.pattern,
        position=old.position,
        projection=old.projection,
        dropout=old.dropout,
    )
    single = old.kv_heads in (None, old.heads)
    if not single or old.replace(kv_heads=None) != plain or type(old.projection) is not Dense:
        raise ConfigError(
            f"{old!r} cannot be given a memory: that is known of attention with Dense projections, a key head for each head "
            f"and {KeepAll()!r}, whose scores are by 1 / √head_dim and chosen by no selector"
        )
    local = None if old.pattern == Causal() & Blocks(segment, before=1) else old.pattern
    return MemorizingAttention(
        old.heads,
        segment,
        memory,
        top_k,
        local,
        old.position,
        old.projection,
        old.head_dim,
        unit=False,
        gate=gate,
        dropout=old.dropout,
    )


def _begun(new: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gates and the scales of the memory, which the old model had not."""
    return {name: tensor for name, tensor in new.build().state_dict().items() if name not in weights}
