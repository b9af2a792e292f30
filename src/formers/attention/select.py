"""Selectors: which pairs meet, chosen by content. The choice is kept apart from the plan that it leads to, so that it
can be saved and used again when a pass is recomputed."""

from typing import Any, NamedTuple

from torch import Tensor, nn

from formers.attention.clusters import ClusterPlan
from formers.attention.plan import Plan
from formers.attention.sorted.plan import SortedPlan
from formers.attention.top_blocks.plan import BlocksPlan
from formers.call import Call
from formers.places import Places
from formers.spec.core import Site, Spec

EVERY = slice(None)


class Selector(Spec):
    """Looks at queries and keys and says which of them meet; the pattern still decides what is visible."""

    @property
    def prefix_stable(self) -> bool:
        """True if later tokens never change the choice for earlier ones, so that decoding equals the full pass."""
        return False

    @property
    def stable_form(self) -> "Selector | None":
        """A form of it that is prefix stable; None: it has none."""
        return None

    @property
    def of_keys(self) -> bool:
        """True if it chooses by the keys alone, so that it needs a projection whose queries are the keys."""
        return False

    def build(self, site: Site) -> "SelectorRule":
        """Built at a site with heads and head_dim."""
        raise NotImplementedError


class Chosen(NamedTuple):
    """choices: discrete decisions (tensors). state: what the next call is given as `past`, None for nothing."""

    choices: Any
    state: Any = None


class Noted(NamedTuple):
    """losses: named scalars for the training loss. records: named tensors, as in an `Out`."""

    losses: dict[str, Tensor] = {}  # noqa: RUF012 - never changed
    records: dict[str, tuple[Tensor, ...]] = {}  # noqa: RUF012 - never changed


class SelectorRule(nn.Module):
    def choose(self, q: Tensor, k: Tensor, call: Call, to: Places, past: Any = None, heads: slice = EVERY) -> Chosen:
        """Decide for queries (B, H, T, D) at call.at and keys (B, H, S, D) at `to`, of which the queries' are the last.

        past: the state that the call before came to. heads: which of the layer's heads these are.
        """
        raise NotImplementedError

    def plan(self, choices: Any, at: Places, to: Places) -> Plan | SortedPlan | ClusterPlan | BlocksPlan | None:
        """The plan that the decisions lead to; None: all pairs that the pattern shows."""
        raise NotImplementedError

    def note(self, q: Tensor, k: Tensor, choices: Any, call: Call, heads: slice = EVERY) -> Noted:
        """What training is to know of the queries and keys that `choose` was given, and of the choices. A recomputed
        pass asks again, with the choices of the first, since losses have gradients."""
        return Noted()
