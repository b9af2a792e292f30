"""Absolute positions of one of two inputs."""

import torch
from torch import Tensor

from formers.call import Call
from formers.places import Places
from formers.position.absolute import AbsoluteLayer, AbsolutePosition
from formers.sides import GLOBAL, are_global
from formers.spec.core import Site


class LongOnly(AbsolutePosition):
    """Absolute positions of long tokens, counted among themselves; global tokens (the mark "global") have none.

    So a model that was trained without a global input finds each token where it is used to.
    """

    position: AbsolutePosition

    @property
    def max_length(self) -> int | None:
        """How many long tokens there may be."""
        return self.position.max_length

    def build(self, site: Site) -> AbsoluteLayer:
        return LongOnlyLayer(self, site)


class LongOnlyLayer(AbsoluteLayer):
    def __init__(self, spec: LongOnly, site: Site) -> None:
        super().__init__()
        self.position = spec.position.build(site)

    def vectors(self, places: Places, dtype: torch.dtype) -> Tensor:
        vectors: Tensor = self.position.vectors(places, dtype)
        return vectors

    def forward(self, x: Tensor, call: Call) -> Tensor:
        if GLOBAL not in call.at.marks:
            placed: Tensor = self.position(x, call)
            return placed
        far = ~are_global(call.at)
        real = far if call.at.real is None else far & call.at.real
        at = Places((real.cumsum(1) - 1).clamp(min=0), real, call.at.marks)
        return torch.where(far[..., None], self.position(x, call.with_places(at)), x)
