"""Tables that some checkpoints carry although a formula makes them."""

import numpy as np
import torch
from torch import Tensor


def sinusoids(rows: int, width: int) -> Tensor:
    """sin of every rate, then cos of every rate, for each position: (rows, width), bit for bit as it is published."""
    rates = np.power(10_000, 2 * np.arange((width + 1) // 2) / width)
    angles = np.arange(rows)[:, None] / rates
    table = np.concatenate([np.sin(angles), np.cos(angles[:, : width // 2])], 1)
    return torch.from_numpy(table.astype(np.float32))
