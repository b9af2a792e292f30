"""Sinkhorn attention to test: its forms, and ways to build and to call them."""

from torch import Tensor

from formers.attention.sinkhorn import SinkhornAttention
from formers.call import Call
from formers.places import Places
from formers.spec.core import Site

DIM = 12
CAUSAL, TWO_SIDED = Site(dim=DIM, causal=True), Site(dim=DIM)
FORMS = {
    "causal": (SinkhornAttention(3, block=4, iterations=2), CAUSAL),
    "two-sided": (SinkhornAttention(3, block=4), TWO_SIDED),
    "cut": (SinkhornAttention(3, block=4, cut=2), TWO_SIDED),
}


def layer(form: str, **changes):
    spec, site = FORMS[form]
    return spec.replace(**changes).build(site).eval()


def whole(module, x: Tensor, mask: Tensor | None = None, seed: int = 0) -> Tensor:
    return module(x, Call(places(x, mask), seed=seed)).y


def places(x: Tensor, mask: Tensor | None = None, seen: Tensor | int = 0) -> Places:
    if mask is None:
        return Places.run(int(seen), x.shape[1])
    before = seen[:, None] if isinstance(seen, Tensor) else seen
    return Places((before + mask.cumsum(1) - 1).clamp(min=0), mask)
