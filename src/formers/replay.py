"""What surrounds a pass without being handed to it, autocast and random numbers, so that a second pass meets it again."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

Drawn = tuple[Tensor, ...]


class Autocast:
    """The autocast of a device as it is now."""

    def __init__(self, device: torch.device) -> None:
        self._kind = device.type
        self._enabled = torch.is_autocast_enabled(self._kind)
        self._dtype = torch.get_autocast_dtype(self._kind)

    def again(self) -> torch.autocast:
        """The same, anywhere, without the cache of cast parameters: casts made without a gradient would be found
        there by those who need one, and the other way round."""
        return torch.autocast(self._kind, self._dtype, self._enabled, cache_enabled=False)

    def off(self) -> torch.autocast:
        """None, for gradients that are worked out while it is on: it would lower their precision as well."""
        return torch.autocast(self._kind, self._dtype, enabled=False)

    def lowered(self, t: Tensor) -> Tensor:
        """A tensor as autocast's products take it."""
        return t.to(self._dtype) if self._enabled and t.dtype == torch.float32 else t


def drawn(device: torch.device) -> Drawn:
    """Where torch's generators stand: the CPU's, and the device's own."""
    cpu = torch.get_rng_state()
    if device.type == "cpu":
        return (cpu,)
    if device.type == "mps":
        return cpu, torch.mps.get_rng_state()
    return cpu, torch.get_device_module(device).get_rng_state(device)


def draw_again(device: torch.device, states: Drawn) -> None:
    """Put the generators back to where they stood."""
    torch.set_rng_state(states[0])
    if device.type == "mps":
        torch.mps.set_rng_state(states[1])
    elif device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[1], device)


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Whatever is drawn or put back inside, the generators stand afterwards where they stood before."""
    before = drawn(device)
    try:
        yield
    finally:
        draw_again(device, before)
