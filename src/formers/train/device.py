"""Where a run computes, and the random numbers that it draws there."""

from contextlib import AbstractContextManager, nullcontext

import torch

from formers.data.chance import mix
from formers.errors import ConfigError

AUTO = "auto"


def pick_device(name: str = AUTO) -> torch.device:
    """The device of that name; "auto" takes a GPU where there is one. Raises ConfigError where it is not there."""
    if name == AUTO:
        usable = [kind for kind in ("cuda", "mps") if _usable(kind)]
        return torch.device(usable[0] if usable else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"{name!r} is no device; name cpu, cuda, cuda:1, mps or auto") from None
    if not _usable(device.type, device.index or 0):
        raise ConfigError(f"this machine, or this build of PyTorch, has no {name}; use device=cpu, or auto")
    return device


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """A context in which matrix products run in bfloat16, if that is the precision; parameters stay in fp32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def private_chance(device: torch.device) -> AbstractContextManager[object]:
    """A context that leaves the caller's random numbers as they were before."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def seed_of_step(seed: int, step: int) -> int:
    """63 bits for one update: all its random numbers follow from them, so that no generator has to be saved."""
    return int(mix(seed, step)[0]) >> 1


def seed_generators(device: torch.device, seed: int) -> None:
    """What torch.manual_seed does, for the CPU and one device; that looks for every kind of device, and takes 0.3 ms."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def _usable(kind: str, index: int = 0) -> bool:
    if kind == "cuda":
        return torch.cuda.is_available() and index < torch.cuda.device_count()
    if kind == "mps":
        return torch.backends.mps.is_available()
    return kind == "cpu"
