"""An optimiser's memory as named tensors, so that it fits in a safetensors file."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from formers.errors import CheckpointError
from formers.train.weights import open_tensors, unique_tensors, write_tensors

KIND = "optimizer"


def write_moments(path: Path, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Write what the optimiser remembers of each parameter, as "parameter/moment". Raises OSError."""
    moments: dict[str, Tensor] = {
        f"{name}/{moment}": value
        for name, parameter in unique_tensors(model).items()
        for moment, value in optimizer.state.get(parameter, {}).items()
    }
    write_tensors(path, moments, {KIND: type(optimizer).__name__})


def read_moments(path: Path, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Give an optimiser of that model back what was written. Raises CheckpointError if it does not fit."""
    places = _places(optimizer, model)
    state: dict[int, dict[str, Any]] = {}
    with open_tensors(path) as file:
        kind, given = (file.metadata() or {}).get(KIND), type(optimizer).__name__
        if kind != given:
            raise CheckpointError(
                f"{path} is the memory of {kind}, and {given} is given; use the optimiser of that run"
            )
        for key in file.keys():  # noqa: SIM118 - a safetensors file is no dictionary
            name, _, moment = key.rpartition("/")
            if name not in places:
                raise CheckpointError(f"{path} does not fit the model: {name} is none of its trained parameters")
            state.setdefault(places[name], {})[moment] = file.get_tensor(key)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _places(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, int]:
    """The number that the optimiser knows each parameter by, which counts through its groups."""
    names = {id(parameter): name for name, parameter in unique_tensors(model).items()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {names[id(parameter)]: number for number, parameter in enumerate(parameters)}
