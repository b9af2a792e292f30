"""How training is spread over processes. Not part of the model's spec, nor of the run's: losses do not depend on it."""

from collections.abc import Iterator
from typing import Literal

from formers.spec import Site, Spec, check


class Distribution(Spec):
    """What each of several processes holds, and where.

    shard: "data": every process holds the whole model and takes a share of each batch; "full": it also holds only a share
    of parameters, gradients and optimiser state, and gathers each block's when it runs (PyTorch's fully_shard; the idea
    is ZeRO's, Rajbhandari et al. 2019, arXiv:1910.02054). divide_experts: over how many processes the experts of each
    mixture are divided (Switch Transformer, arXiv:2101.03961, section 5.3); 1: each process holds all that it would
    hold of any other layer. offload: parameters and optimiser state lie in the CPU's memory, and blocks are copied to the
    GPU when they run. swap: what the forward pass keeps for the backward pass waits in the CPU's memory.
    """

    shard: Literal["data", "full"] = "data"
    divide_experts: int = 1
    offload: bool = False
    swap: bool = False

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.divide_experts < 1:
            yield f"experts cannot be divided over {self.divide_experts} processes", "divide_experts=1"
        if self.offload and self.shard != "full":
            what = "a model that every process holds whole is not moved to the CPU between its blocks"
            yield what, 'shard="full"'

    def check(self) -> None:
        """Raise one ConfigError that lists every problem, or return."""
        check(self, Site(dim=0), "distribution")
