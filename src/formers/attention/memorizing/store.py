"""What a memorizing layer stores: keys of length 1 and values, first in, first out."""

from typing import NamedTuple

from torch import Tensor

from formers.call import Call
from formers.places import Places
from formers.state import Log


class Store(NamedTuple):
    """Keys and values (B, H, S, D) without a gradient, and where they stand."""

    keys: Log
    values: Log
    places: Places


def grown(past: Store | None, keys: Tensor, values: Tensor, call: Call) -> Store:
    """The store with the tokens of this call behind it."""
    if past is None:
        return Store(Log(keys), Log(values), call.at)
    places = call.memo.once(("join", past.places, call.at), lambda: past.places.join(call.at))
    return Store(past.keys.extend(keys), past.values.extend(values), places)


def kept(store: Store, call: Call, segment: int, memory: int) -> Store:
    """The store without what no later query may retrieve."""
    key = ("memorizing keeps", segment, memory, store.places)
    count = call.memo.once(key, lambda: _retrievable(store.places, segment, memory))
    if count == store.places.length:
        return store
    places = call.memo.once(("last", count, store.places), lambda: store.places.last(count))
    return Store(store.keys.last(count), store.values.last(count), places)


def _retrievable(places: Places, segment: int, memory: int) -> int:
    """How many of the last slots the next token of some row may retrieve, or one that comes after it."""
    if places.start is not None:
        return min(places.length, (places.start + places.length) % segment + memory)
    real = places.pos >= 0 if places.real is None else places.real
    pos = places.pos.expand_as(real)
    after = pos.masked_fill(~real, -1).amax(1, keepdim=True) + 1
    needed = (real & (pos >= after // segment * segment - memory)).any(0).nonzero()
    return places.length - int(needed[0]) if len(needed) else 0
