"""What torchrun tells a process about itself, by the environment. Loads nothing, so that every command may ask."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from formers.errors import ConfigError

MEND = "start it with torchrun --nproc-per-node 2 -m formers train ..."
WANTED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Told:
    """rank of size processes, the local-th of its machine; where they meet; attempt: how often all were started anew."""

    rank: int
    size: int
    local: int
    address: str
    port: int
    attempt: int


def told(environment: Mapping[str, str] = os.environ) -> Told | None:
    """What the environment says, None where this process is alone.

    Raises ConfigError where it says that there are others, and not how many or where they meet.
    """
    if "RANK" not in environment and "WORLD_SIZE" not in environment:
        return None
    missing = [name for name in WANTED if name not in environment]
    if missing:
        raise ConfigError(
            f"the environment says that this is one of several processes, and lacks {', '.join(missing)}, by which they "
            f"meet; {MEND}"
        )
    numbers = {name: _number(environment, name) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT")}
    rank, size = numbers["RANK"], numbers["WORLD_SIZE"]
    if rank >= size:
        raise ConfigError(f"RANK={rank} counts from 0, and there are {size} processes by WORLD_SIZE; {MEND}")
    local = _number(environment, "LOCAL_RANK") if "LOCAL_RANK" in environment else rank
    attempt = _number(environment, "TORCHELASTIC_RESTART_COUNT") if "TORCHELASTIC_RESTART_COUNT" in environment else 0
    return Told(rank, size, local, environment["MASTER_ADDR"], numbers["MASTER_PORT"], attempt)


def is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process speaks for all: it is alone, or the first of several."""
    return environment.get("RANK", "0") == "0"


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment[name]
    if not text.isdecimal():
        raise ConfigError(f"{name}={text!r} in the environment is no number; {MEND}")
    return int(text)
