"""Training from other places on than the first, so that a model meets more positions than its texts are long."""

import torch
from torch import Tensor

from formers.call import Call
from formers.places import Places

# Tells the random numbers of positions from those of blocks, whose paths begin with small numbers.
ORDER = 1 << 20


def chance_of_order(call: Call, path: tuple[int, ...]) -> torch.Generator:
    """The random numbers of the absolute position of the model built at `path`."""
    return call.chance((*path, ORDER))


def drawn_below(limit: int, rows: int, chance: torch.Generator) -> Tensor:
    """A number from 0 to limit - 1 for each row."""
    return torch.randint(max(1, limit), (rows,), generator=chance)


def moved(places: Places, by: Tensor) -> Places:
    """The same tokens, those of each row `by` (B,) positions further on."""
    return Places(places.pos + by.to(places.pos.device)[:, None], places.real, places.marks)
