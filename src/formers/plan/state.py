"""How many bytes a state takes."""

from typing import Any

from torch import Tensor

from formers.state import tensors


def state_bytes(state: Any) -> int:
    """Bytes of the tensors of a state; what layers share counts once."""
    sizes = {tensor.untyped_storage()._cdata: tensor for tensor in map(_held, tensors(state))}
    return sum(tensor.numel() * tensor.element_size() for tensor in sizes.values())


def _held(tensor: Tensor) -> Tensor:
    held: Tensor = getattr(tensor, "meta", tensor)
    return held
