"""Weights of sparse layers as their operations read them: in blocks, each a row of a matrix. See source/sparse_products.h."""

import torch
from torch import Tensor
from torch.nn import functional as F

from formers.native.engine.weights import up_to

DEPTH = 32  # inputs in a block
WIDEST = 80  # outputs in a block, at most
LANES = 16  # outputs come in multiples of so many


def panel_width(outputs: int) -> int:
    """How wide the panels are that so many outputs are cut into: the widest that leaves no rest."""
    lanes = up_to(outputs, LANES) // LANES
    return LANES * max(width for width in range(1, WIDEST // LANES + 1) if lanes % width == 0)


def panels(weights: list[Tensor], dtype: str, by_panel: bool = True) -> Tensor:
    """Products (inputs, outputs), one behind the other -> (panels * blocks, DEPTH * panel width), panel by panel, or block
    by block."""
    made = torch.cat([_panels(weight, dtype) for weight in weights], 1)
    return (made if by_panel else made.transpose(0, 1)).flatten(0, 1)


def _panels(weight: Tensor, dtype: str) -> Tensor:
    inputs, outputs = weight.shape
    width = panel_width(outputs)
    padded = F.pad(weight, (0, -outputs % LANES, 0, -inputs % DEPTH))
    blocks = padded.unflatten(0, (-1, DEPTH)).unflatten(2, (-1, width)).permute(2, 0, 1, 3)
    return paired(blocks, dtype).flatten(2)


def paired(blocks: Tensor, dtype: str) -> Tensor:
    """Blocks (..., depth, width); all but those of fp32 with two inputs side by side, (..., depth / 2, width, 2)."""
    return blocks if dtype == "fp32" else blocks.unflatten(-2, (-1, 2)).transpose(-2, -1)


def gates(gate: Tensor, dtype: str) -> Tensor:
    """Gates (modules, inputs) -> (blocks, modules * DEPTH); but for fp32, number 16 + i of each run stands beside i."""
    blocks = F.pad(gate, (0, -gate.shape[1] % DEPTH)).unflatten(1, (-1, DEPTH)).transpose(0, 1)
    if dtype != "fp32":
        blocks = blocks.unflatten(-1, (2, -1)).transpose(-2, -1)
    return blocks.flatten(1)


def choices(weight: Tensor, units: int, dtype: str) -> Tensor:
    """A controller's product (blocks * units, rank) -> (blocks, rank * units), both padded."""
    blocks = weight.unflatten(0, (-1, units)).transpose(1, 2)
    padded = F.pad(blocks, (0, -units % LANES, 0, -weight.shape[1] % 2))
    return paired(padded, dtype).flatten(1)


def units(up: Tensor, down: Tensor) -> Tensor:
    """up (F, M), down (M, F) -> (2 F, M): what unit u reads by is row 2u, what it adds row 2u + 1."""
    return torch.stack([up, down.mT], 1).flatten(0, 1)
