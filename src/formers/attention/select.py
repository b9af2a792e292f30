"""Selectors: which pairs meet, chosen by content. The choice is kept apart from the plan that it leads to, so that it
can be saved and used again when a pass is recomputed."""

from typing import Any

from torch import Tensor, nn

from formers.attention.plan import Plan
from formers.call import Call
from formers.places import Places
from formers.spec.core import Site, Spec


class Selector(Spec):
    """Looks at queries and keys and says which of them meet; the pattern still decides what is visible."""

    @property
    def prefix_stable(self) -> bool:
        """True if later tokens never change the choice for earlier ones, so that decoding equals the full pass."""
        return False

    def build(self, site: Site) -> "SelectorRule":
        """Built at a site with heads and head_dim."""
        raise NotImplementedError


class SelectorRule(nn.Module):
    def choose(self, q: Tensor, k: Tensor, call: Call, to: Places) -> Any:
        """Discrete decisions (tensors) for queries (B, H, T, D) at call.at and keys (B, H, S, D) at `to`."""
        raise NotImplementedError

    def plan(self, choices: Any, at: Places, to: Places) -> Plan:
        """The plan that the decisions lead to."""
        raise NotImplementedError
