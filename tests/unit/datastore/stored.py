"""A small model, texts, and stores of them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from formers import make
from formers.data.tokenizer import ByteTokenizer
from formers.datastore import Datastore, Reading, build

TOKENIZER = ByteTokenizer()
LENGTH, OVERLAP, ROWS = 12, 8, 3


def small_model(member: str = "gpt2", seed: int = 0, **changes: Any) -> nn.Module:
    torch.manual_seed(seed)
    sizes = {"vocab": 257, "dim": 16, "depth": 2, "heads": 2, "hidden": 24} | changes
    model = make(member, **sizes).build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def text_of(length: int, seed: int = 1) -> np.ndarray:
    """Ids with an end among them now and then."""
    drawn = torch.randint(97, 123, (length,), generator=torch.Generator().manual_seed(seed)).numpy()
    drawn[17::31] = TOKENIZER.end
    return drawn.astype(np.uint16)


def reading_of(model: nn.Module, tokens: np.ndarray, rows: int = ROWS) -> Reading:
    return Reading(model, tokens, start=TOKENIZER.end, length=LENGTH, overlap=OVERLAP, rows=rows)


def store_of(folder: Path, model: nn.Module, tokens: np.ndarray, **how: Any) -> Datastore:
    return build(folder, reading_of(model, tokens), TOKENIZER, **how)
