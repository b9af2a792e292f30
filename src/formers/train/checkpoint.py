"""Checkpoints: a folder with the model, the optimiser's memory and where the run stood, whole or absent."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from formers.data.atomic import read_json, write_json
from formers.errors import CheckpointError, DataError
from formers.spec import Spec
from formers.state.saved import load_state, save_state
from formers.train.digest import digest_of_file
from formers.train.folder import whole_folder
from formers.train.moments import read_moments, write_moments
from formers.train.processes import OneProcess
from formers.train.weights import read_weights, write_weights

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
CARRIED = "carried.safetensors"


@dataclass(frozen=True)
class Position:
    """How far a run has come: updates done, tokens read, seconds spent on updates."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


def save_checkpoint(
    path: Path,
    model: nn.Module,
    spec: Spec,
    optimizer: torch.optim.Optimizer | None = None,
    position: Position = Position(),
    data: Mapping[str, str] = MappingProxyType({}),
    carried: tuple[Any, ...] | None = None,
    processes: OneProcess = OneProcess(),
) -> None:
    """Write a checkpoint, which appears at `path` when it is complete. `data` identifies what was trained on.

    carried: what the next step goes on from, see `Updater`. processes: who holds the model. All of them must call this;
    the first gathers what the others hold and writes it, as one process would.

    Without an optimiser (a model that was imported, say) it can be loaded, but no run can go on from it.
    Raises CheckpointError, with nothing left behind, if the disk refuses.
    """
    try:
        with whole_folder(path) if processes.first else nullcontext(path) as folder:
            write_weights(folder / MODEL, model, spec, processes)
            if optimizer is not None:
                write_moments(folder / OPTIMIZER, optimizer, model, processes)
            whole = processes.whole_state(carried)
            if not processes.first:
                return
            if whole is not None:
                save_state(folder / CARRIED, whole)
            sha256 = {path.name: digest_of_file(path) for path in sorted(folder.glob("*.safetensors"))}
            write_json(folder / STATE, {**asdict(position), "data": dict(data), "sha256": sha256})
    except (OSError, DataError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise CheckpointError(
            f"{path} cannot be written: {reason}; earlier checkpoints are whole, so make room and resume from them"
        ) from error


def load_checkpoint(
    path: Path,
    model: nn.Module,
    spec: Spec,
    optimizer: torch.optim.Optimizer,
    data: Mapping[str, str],
    processes: OneProcess = OneProcess(),
) -> Position:
    """Bring model and optimiser to where a checkpoint left them. processes: who holds the model; each takes its part.

    Raises CheckpointError if it is damaged, of another model, or was trained on other data.
    """
    position, saved_data = require_whole(path)
    changed = [name for name in {**saved_data, **data} if saved_data.get(name) != data.get(name)]
    if changed:
        raise CheckpointError(
            f"{path} was trained on other data ({', '.join(changed)} changed since); "
            "resume with the data of that run, or train in another folder"
        )
    read_weights(path / MODEL, model, spec, processes)
    read_moments(path / OPTIMIZER, optimizer, model, processes)
    return position


def load_carried(path: Path, device: torch.device) -> tuple[Any, ...] | None:
    """What a step after the checkpoint goes on from, None if it was trained on without. Raises CheckpointError."""
    return load_state(path / CARRIED, device) if (path / CARRIED).exists() else None


def require_whole(path: Path) -> tuple[Position, dict[str, str]]:
    """Where the run stood and what identifies its data; raises CheckpointError unless every file is as it was written."""
    try:
        state = read_json(path / STATE)
        position = Position(int(state["step"]), int(state["tokens"]), float(state["seconds"]))
        data, sha256 = dict(state["data"]), {MODEL: "", **state["sha256"]}
    except DataError as error:
        raise CheckpointError(f"{path} is no whole checkpoint: {error}{_MEND}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path / STATE} is damaged: it does not say where the run stood{_MEND}") from error
    for name, written in sha256.items():
        if _digest(path / name) != written:
            raise CheckpointError(f"{path / name} is damaged: it is not the file that was written{_MEND}")
    return position, data


_MEND = "; remove that folder, and the run goes on from the checkpoint before it"


def _digest(path: Path) -> str:
    try:
        return digest_of_file(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}{_MEND}") from error
