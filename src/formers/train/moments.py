"""An optimiser's memory as named tensors, so that it fits in a safetensors file."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from formers.errors import CheckpointError
from formers.train.processes import OneProcess
from formers.train.weights import open_tensors, unique_tensors, write_tensors

KIND = "optimizer"


def write_moments(
    path: Path, optimizer: torch.optim.Optimizer, model: nn.Module, processes: OneProcess = OneProcess()
) -> None:
    """Write what the optimiser remembers of each parameter, as "parameter/moment". Raises OSError.

    processes: who holds the model. All of them must call this, and the first writes.
    """
    moments: dict[str, Tensor] = {}
    parameters: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, parameter in unique_tensors(model).items():
        for moment, value in optimizer.state.get(parameter, {}).items():
            key = f"{name}/{moment}"
            moments[key] = value if isinstance(value, Tensor) else torch.tensor(value)
            parameters[key] = parameter
            if id(moments[key]) in seen:  # all quantised moments have one code: a file holds no tensor twice
                moments[key] = moments[key].clone()
            seen.add(id(moments[key]))
    whole = processes.whole(moments, parameters)
    if processes.first:
        write_tensors(path, whole, {KIND: type(optimizer).__name__})


def read_moments(
    path: Path, optimizer: torch.optim.Optimizer, model: nn.Module, processes: OneProcess = OneProcess()
) -> None:
    """Give an optimiser of that model back what was written. Raises CheckpointError if it does not fit.

    processes: who holds the model; the file is of all of it, and each takes its part.
    """
    places, parameters = _places(optimizer, model), unique_tensors(model)
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
            value = file.get_tensor(key)
            is_count = not value.dim() and not value.is_floating_point()  # a number, and no tensor, where it came from
            part = value.item() if is_count else processes.part(parameters[name], value)
            state.setdefault(places[name], {})[moment] = part
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _places(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, int]:
    """The number that the optimiser knows each parameter by, which counts through its groups."""
    names = {id(parameter): name for name, parameter in unique_tensors(model).items()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {names[id(parameter)]: number for number, parameter in enumerate(parameters)}
