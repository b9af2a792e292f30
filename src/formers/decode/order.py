"""How order enters a straight line of decoding: tables for the places to come, looked up one row at a time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from formers.errors import NoRuleError
from formers.places import Places, keys, queries
from formers.position.absolute import AbsoluteLayer, AxialLayer, AxialSumLayer, LearnedLayer, SinusoidalLayer
from formers.position.core import PositionLayer
from formers.position.distance import ALiBiLayer, T5BucketsLayer
from formers.position.rotary import RotaryLayer


class Order(NamedTuple):
    """turn: queries or keys (heads, D) at a place. bias: (H, any), its last column for a query's own key, the one before
    for the key before it, and so on."""

    turn: Callable[[Tensor, int], Tensor] | None = None
    bias: Tensor | None = None


def added(position: AbsoluteLayer | None, places: Places, dtype: torch.dtype) -> Callable[[int], Tensor] | None:
    """What is added to the embedding at one of the places, as (1, M)."""
    if position is None:
        return None
    if type(position) is LearnedLayer:
        weight = position.table.weight
        return lambda n: weight[n : n + 1]
    if type(position) in (SinusoidalLayer, AxialLayer, AxialSumLayer):
        start = places.bounds[0]
        table = position.vectors(places, dtype)[0]
        return lambda n: table[n - start : n - start + 1]
    raise NoRuleError(f"{type(position).__name__} has no rule")


def order_of(position: PositionLayer, places: Places, dtype: torch.dtype) -> Order:
    """What a position inside attention does at the places."""
    if type(position) is PositionLayer:
        return Order()
    if type(position) is RotaryLayer:
        return Order(turn=_turn(position, places, dtype))
    if type(position) in (ALiBiLayer, T5BucketsLayer):
        end = places.bounds[1]
        last, all_keys = Places.run(end, 1, places.device), Places.run(0, end + 1, places.device)
        heads: Any = position.heads
        head = torch.arange(heads, device=places.device)[:, None, None]
        return Order(bias=position.bias(queries(last), keys(all_keys), head)[0, :, 0].to(dtype))
    raise NoRuleError(f"{type(position).__name__} has no rule")


def _turn(position: RotaryLayer, places: Places, dtype: torch.dtype) -> Callable[[Tensor, int], Tensor]:
    """x cos + (x with the channels of each pair exchanged) (-sin, sin)."""
    start = places.bounds[0]
    cos, sin = (angle[0, 0] for angle in position.angles(places, dtype))
    if position.spec.pairing == "halves":
        half = cos.shape[-1]
        cos, sin = torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)
        return lambda x, n: torch.addcmul(x * cos[n - start], x.roll(half, -1), sin[n - start])
    cos, sin = torch.stack([cos, cos], -1).flatten(-2), torch.stack([-sin, sin], -1).flatten(-2)

    def turn(x: Tensor, n: int) -> Tensor:
        exchanged = x.view(len(x), -1, 2).flip(-1).view_as(x)
        return torch.addcmul(x * cos[n - start], exchanged, sin[n - start])

    return turn
