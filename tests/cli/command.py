"""What tests of the command line say to it, and what they hear."""

from collections.abc import Callable
from typing import NamedTuple

TEXT = "".join(f"{number} green bottles, and {number * number} more; " for number in range(200))
TINY = ["gpt2", "dim=16", "depth=2", "heads=2", "length=32", "dropout=0"]
QUICK = ["--batch", "4", "--length", "16", "--warm-up", "2", "--learning-rate", "0.01"]


class Said(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


Cli = Callable[..., Said]
