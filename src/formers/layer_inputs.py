"""A memory of what a layer was given, and not of the keys that it made of it: Dai et al. 2019, arXiv:1901.02860."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from formers.call import Call
from formers.memory import Memory, MemoryRule, Project, Recalled
from formers.places import Places
from formers.spec.core import Site
from formers.state import Log

if TYPE_CHECKING:
    from formers.attention.layer import Attention
    from formers.attention.pattern import Pattern


class KeepInputs(Memory):
    """The inputs of attention, as far back as the pattern looks. Keys and values are made of them by the weights of today.

    So a stored input trains the projections whenever it is met, while the state is detached from step to step. Where
    nothing is trained, keys and values are kept beside the inputs, and none is made twice: then the weights must not change
    during a stream.
    """

    carries: ClassVar[bool] = True

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if not site.causal:
            what = "a memory of earlier segments belongs to a decoder: an encoder sees its input at once"
            yield what, "memory=KeepAll()"

    def problems_with(self, attention: "Attention", site: Site) -> Iterator[tuple[str, str]]:
        pattern = attention.pattern_at(site)
        if pattern.horizon is None:
            what = (
                f"{pattern!r} looks back without end, so a stream would be kept whole, and made keys of in every step"
            )
            yield what, "pattern=Causal() & Segments(512, 512)"
        if attention.select is not None:
            yield f"{attention.select!r} plans for keys that stay, and these are made anew", "select=None"

    def build(self, site: Site, pattern: "Pattern") -> MemoryRule:
        return KeepInputsRule(pattern)


class Inputs(NamedTuple):
    """inputs (B, 1, S, M) and where they stand; k (B, K, S, D) and v (B, K, S, E) of them where nothing is trained."""

    inputs: Log
    places: Places
    k: Log | None = None
    v: Log | None = None


class KeepInputsRule(MemoryRule):
    def __init__(self, pattern: "Pattern") -> None:
        super().__init__()
        self.pattern = pattern

    def forward(self, x: Tensor, call: Call, past: tuple[object, ...] | None, project: Project) -> Recalled:
        learns = self.training or wants_gradients(x, project)
        if past is None and not call.remember:
            return Recalled(*project(x, call.at), call.at, None)
        if past is None:
            k, v = project(x, call.at)
            now = Inputs(Log(x[:, None]), call.at, None if learns else Log(k), None if learns else Log(v))
            return Recalled(k, v, call.at, self._kept(now, call))
        old = Inputs(*past)  # type: ignore[arg-type]
        places = call.memo.once(("join", old.places, call.at), lambda: old.places.join(call.at))
        inputs = old.inputs.extend(x[:, None])
        if learns:
            k, v = project(inputs.view[:, 0], places)
            return Recalled(k, v, places, self._kept(Inputs(inputs, places), call))
        old_k, old_v = _made(old, project)
        k, v = project(x, call.at)
        now = Inputs(inputs, places, old_k.extend(k), old_v.extend(v))
        return Recalled(now.k.view, now.v.view, places, self._kept(now, call))  # type: ignore[union-attr]

    def _kept(self, now: Inputs, call: Call) -> Inputs | None:
        """What a later query may still see."""
        if not call.remember:
            return None
        places = now.places
        count = call.memo.once(("still seen", self.pattern, places), lambda: _still_seen(self.pattern, places))
        if count == places.length:
            return now
        kept = call.memo.once(("last", count, places), lambda: places.last(count))
        k, v = (None if log is None else log.last(count) for log in (now.k, now.v))
        return Inputs(now.inputs.last(count), kept, k, v)


def unmade(state: Any) -> Any:
    """The same state without keys and values that were made of stored inputs: the weights have changed since."""
    if isinstance(state, Inputs):
        return state._replace(k=None, v=None)
    if isinstance(state, tuple):
        items = [unmade(item) for item in state]
        return type(state)(*items) if hasattr(state, "_fields") else tuple(items)
    return state


def wants_gradients(x: Tensor, project: Project) -> bool:
    """Not the whole of it: a recomputed pass runs without gradients first, but in training."""
    if not torch.is_grad_enabled():
        return False
    return x.requires_grad or any(parameter.requires_grad for parameter in project.projection.parameters())


def _made(old: Inputs, project: Project) -> tuple[Log, Log]:
    """Keys and values of a state, made here if it was left by training."""
    if old.k is not None and old.v is not None:
        return old.k, old.v
    k, v = project(old.inputs.view[:, 0], old.places)
    return Log(k), Log(v)


def _still_seen(pattern: "Pattern", places: Places) -> int:
    """How many of the last slots the next token of some row, or one behind it, may see."""
    real = places.pos >= 0 if places.real is None else places.real
    pos = places.pos.expand_as(real)
    after = pos.masked_fill(~real, -1).amax(1, keepdim=True) + 1
    needed = (real & pattern.keeps(pos, after)).any(0).nonzero()
    return places.length - int(needed[0]) if len(needed) else 0
