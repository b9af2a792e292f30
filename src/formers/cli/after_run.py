"""What a run that begins from another takes over: weights, how it was trained, its tokenizer and its data."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from formers.cli.material import Material, open_material, prepare_material
from formers.cli.model import read_spec
from formers.cli.training import changed, new_training, require_length, require_steps
from formers.errors import ConfigError
from formers.train import TrainSpec, load_model, load_run_tokenizer
from formers.train.run import run_folder
from formers.train.weights import copy_weights, unique_tensors


def training_after(run: Path, given: dict[str, Any], longest: int | None) -> TrainSpec:
    """As the run was trained, but for what is given; longest: rows that the new model can read.

    Raises ConfigError where no number of steps is given, or rows are too long.
    """
    file = run_folder(run) / "train.json"
    if not file.is_file():  # it was imported or converted
        return new_training(given, longest)
    require_steps(given)
    spec = changed(read_spec(str(file)), given)
    require_length(spec, longest)
    return spec


def material_after(run: Path, spec: Any, data: Sequence[Path] | None, folder: Path) -> Material:
    """The run's own data, copied into a folder, or the data that is given, in the run's tokens.

    Raises ConfigError where there is neither.
    """
    own = run_folder(run) / "data"
    if data:
        return prepare_material(spec, data, folder, str(run_folder(run)))
    if not own.is_dir():
        raise ConfigError(f"{run} has no data of its own; name text with --data PATH")
    if not folder.is_dir():
        shutil.copytree(own, folder)
    return open_material(spec, folder, load_run_tokenizer(run))


def copy_model(run: Path, model: nn.Module) -> None:
    """Give a model the weights of a run whose model has the same parameters, whatever else differs.

    Raises CheckpointError, the model unchanged, where one of them is missing or of another shape.
    """
    copy_weights(model, unique_tensors(load_model(run)), str(run))
