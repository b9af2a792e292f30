"""Training beyond one process, on PyTorch's own distributed engine."""

from formers.distributed.spec import Distribution
from formers.distributed.world import DistributedError, joined

__all__ = ["DistributedError", "Distribution", "joined"]
