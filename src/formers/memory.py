"""Memory: what attention keeps of earlier calls, and what of it the queries of this call meet."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from formers.call import Call
from formers.places import Places
from formers.spec.core import Site, Spec
from formers.state import Log

if TYPE_CHECKING:
    from formers.attention.layer import Attention
    from formers.attention.pattern import Pattern
    from formers.attention.project import ProjectionLayer


PERIOD = 256  # tokens


class Project(Protocol):
    """How the attention that a memory serves makes keys and values: called, those of inputs at their places."""

    @property
    def projection(self) -> "ProjectionLayer":
        """Queries, keys and values of inputs that stand nowhere."""

    def __call__(self, inputs: Tensor, places: Places) -> tuple[Tensor, Tensor]: ...

    def weights(self, inputs: Tensor, at: Places, k: Tensor, to: Places, pattern: "Pattern") -> Tensor:
        """(B, H, T, S): how much inputs that stand at `at` would attend to keys as this makes them, which stand at `to`.
        Dense, and worked out for whoever asks: attention itself keeps no weights."""


class KeysValues(NamedTuple):
    """Keys (B, K, S, D) and values (B, K, S, E), and where they stand."""

    k: Log
    v: Log
    places: Places


class Recalled(NamedTuple):
    """What the queries of this call meet, and what the next call is given.

    k (B, K, S, D), v (B, K, S, E), places: old and new together. state: None where the call remembers nothing.
    losses: of compressing, say.
    """

    k: Tensor
    v: Tensor
    places: Places
    state: tuple[object, ...] | None
    losses: dict[str, Tensor] = {}  # noqa: RUF012 - never changed


class Memory(Spec):
    """A rule of remembering. Built for a pattern: what it never shows again need not be kept."""

    def shows(self, pattern: "Pattern") -> "Pattern":
        """What of a pattern a query sees where this is the memory."""
        return pattern

    def problems_with(self, attention: "Attention", site: Site) -> Iterator[tuple[str, str]]:
        """What is wrong with an attention that has this memory, at the site of the attention."""
        return iter(())

    def build(self, site: Site, pattern: "Pattern") -> "MemoryRule":
        raise NotImplementedError


class MemoryRule(nn.Module):
    def forward(self, x: Tensor, call: Call, past: tuple[object, ...] | None, project: Project) -> Recalled:
        """x (B, T, M) are the inputs of this call; `project` makes keys and values of inputs at their places."""
        raise NotImplementedError


class KeepAll(Memory):
    """Every key and value that a later query may still see."""

    def build(self, site: Site, pattern: "Pattern") -> MemoryRule:
        return KeepAllRule(pattern)


class KeepAllRule(MemoryRule):
    def __init__(self, pattern: "Pattern") -> None:
        super().__init__()
        self.pattern, self.horizon = pattern, pattern.horizon
        self.has_holes = self.horizon is None and _forgets(pattern)

    def forward(self, x: Tensor, call: Call, past: tuple[object, ...] | None, project: Project) -> Recalled:
        return self.join(*project(x, call.at), call, past)

    def join(self, k: Tensor, v: Tensor, call: Call, past: tuple[object, ...] | None) -> Recalled:
        """Keys and values of this call's tokens, behind those that are kept."""
        if past is None and not call.remember:
            return Recalled(k, v, call.at, None)
        if past is None:
            return self._recalled(KeysValues(Log(k), Log(v), call.at), call)
        old = KeysValues(*past)  # type: ignore[arg-type]
        places = call.memo.once(("join", old.places, call.at), lambda: old.places.join(call.at))
        return self._recalled(KeysValues(old.k.extend(k), old.v.extend(v), places), call)

    def _recalled(self, now: KeysValues, call: Call) -> Recalled:
        kept = self._kept(now, call) if call.remember else None
        return Recalled(now.k.view, now.v.view, now.places, kept)

    def _kept(self, now: KeysValues, call: Call) -> KeysValues:
        if self.has_holes:
            return self._without_holes(now, call)
        horizon = self.horizon
        if horizon is None or now.places.length < horizon:
            return now
        count = call.memo.once(("keep", horizon, now.places), lambda: _still_visible(now.places, horizon))
        if count == now.places.length:
            return now
        places = call.memo.once(("last", count, now.places), lambda: now.places.last(count))
        return KeysValues(now.k.last(count), now.v.last(count), places)

    def _without_holes(self, now: KeysValues, call: Call) -> KeysValues:
        """Without keys that stand between others and are never seen again. Looking for them and closing up takes as long
        as all that is kept, so it is done once in so many tokens."""
        earlier = now.places.length - call.at.length
        if earlier // PERIOD == now.places.length // PERIOD:
            return now
        needed = call.memo.once(("needed", self.pattern, now.places), lambda: _needed(self.pattern, now.places))
        if len(needed) == now.places.length:
            return now
        places = call.memo.once(("needed places", self.pattern, now.places), lambda: now.places.some(needed))
        return KeysValues(now.k.some(needed), now.v.some(needed), places)


def _forgets(pattern: "Pattern") -> bool:
    """Whether some key of the beginning is not seen any more from far behind."""
    with torch.device("cpu"):  # a model may be built without memory, and is asked all the same
        return not bool(pattern.keeps(torch.arange(PERIOD**2), torch.tensor(PERIOD**4)).all())


def _needed(pattern: "Pattern", places: Places) -> Tensor:
    """The slots that a later token of some row may see."""
    real = places.pos >= 0 if places.real is None else places.real
    pos = places.pos.expand_as(real)
    after = pos.masked_fill(~real, -1).amax(1, keepdim=True) + 1
    return (real & pattern.keeps(pos, after)).any(0).nonzero()[:, 0]


def _still_visible(places: Places, horizon: int) -> int:
    """How many of the last slots may be seen by the next token of some row: it stands one further than the last."""
    if places.start is not None:
        return min(horizon - 1, places.length)
    real = places.pos >= 0 if places.real is None else places.real
    pos = places.pos.expand_as(real)
    newest = pos.masked_fill(~real, -1).amax(1, keepdim=True)
    needed = (real & (pos > newest + 1 - horizon)).any(0).nonzero()
    return places.length - int(needed[0]) if len(needed) else 0
