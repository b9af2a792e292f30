"""A tiny model with dropout, a tiny text, and a spec of six updates."""

from typing import Any

import torch
from torch import nn

from formers import make
from formers.train import TrainSpec

TEXT = "".join(f"{number} green bottles, and {number * number} more; " for number in range(200))


def tiny_model(seed: int = 0, **changes: Any) -> nn.Module:
    arguments = {"vocab": 257, "dim": 16, "depth": 2, "heads": 2, "length": 32, "dropout": 0.1}
    torch.manual_seed(seed)
    return make("gpt2", **(arguments | changes)).build()


def tiny_spec(**changes: Any) -> TrainSpec:
    usual = {"steps": 6, "batch": 4, "length": 16, "evaluate_every": 100, "checkpoint_every": 100}
    return TrainSpec(**(usual | {"evaluate_tokens": 200} | changes))
