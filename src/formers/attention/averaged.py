"""Dense projections of a model that goes on with shared queries and keys."""

from collections.abc import Iterator

from torch import Tensor

from formers.attention.own_keys import own_keys
from formers.attention.project import Dense, DenseLayer, DenseShare, ProjectionLayer
from formers.attention.shared_qk import own_key_problems
from formers.spec.core import Site


class AveragedQK(Dense):
    """Queries are the mean of what Dense makes of queries and of keys, and keys the same at length 1.

    Terraformer, Jaszczur et al. 2021, arXiv:2111.12763, code: a model pretrained with Dense goes on with hashing on the
    same parameters. Use it with scale=1.0 and position=SelfLast(), and see SharedQK.
    """

    @property
    def shared(self) -> bool:
        return True

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from own_key_problems(site)

    def build(self, site: Site) -> ProjectionLayer:
        return AveragedQKLayer(self, site)


class AveragedQKLayer(DenseLayer):
    def queries(self, x: Tensor) -> Tensor:
        return self.together(x)[0]

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.together(x)[1:]

    def together(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return averaged(super().queries(x), *super().keys_values(x))

    def share(self, heads: slice) -> ProjectionLayer:
        return AveragedQKShare(self, heads)


class AveragedQKShare(DenseShare):
    """Some heads of it; it owns no parameters."""

    def together(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return averaged(*super().together(x))


def averaged(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of queries and keys as both."""
    return *own_keys((q + k) / 2), v
