"""A model's tensors in one safetensors file, each stored once, with the model's spec in the header."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from formers.errors import CheckpointError
from formers.spec import Spec, diff, from_json, to_json
from formers.train.processes import OneProcess

SPEC = "spec"


def unique_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers by name; a tensor that has several names (tied weights) only by its first."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor
    return found


def write_weights(path: Path, model: nn.Module, spec: Spec, processes: OneProcess = OneProcess()) -> None:
    """Write a model's tensors and its spec. Raises OSError where the disk refuses.

    processes: who holds the model. All of them must call this, and the first writes.
    """
    whole = processes.whole(unique_tensors(model))
    if processes.first:
        write_tensors(path, whole, {SPEC: to_json(spec)})


def read_weights(path: Path, model: nn.Module, spec: Spec, processes: OneProcess = OneProcess()) -> None:
    """Fill a model of that spec from a file. Raises CheckpointError, the model unchanged, if anything does not fit.

    processes: who holds the model; each fills its part.
    """
    with open_tensors(path) as file:
        saved = (file.metadata() or {}).get(SPEC)
        if saved is not None:
            require_equal(from_json(saved, str(path)), spec, f"{path} is of another model")
        wanted = unique_tensors(model)
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        whole = {name: processes.whole_shape(tensor) for name, tensor in wanted.items()}
        _require_shapes(str(path), shapes, whole)
        with torch.no_grad():
            for name, tensor in wanted.items():
                processes.fill(tensor, file.get_tensor(name))


def copy_weights(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Fill a model with tensors by name, whatever spec they are of: its patterns may differ, its parameters may not.

    where: what the tensors are of, for messages. Raises CheckpointError, the model unchanged, if anything does not fit.
    """
    wanted, names = unique_tensors(model), model.state_dict().keys()
    _require_shapes(
        where, _shapes({n: t for n, t in tensors.items() if n in wanted or n not in names}), _shapes(wanted)
    )
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(tensors[name])


def require_equal(saved: Any, given: Any, what: str) -> None:
    """Raise CheckpointError that tells each field that differs between a saved spec and the one at hand."""
    told = [f"{path or 'the whole'}: {old!r} was saved, {new!r} is given" for path, old, new in diff(saved, given)]
    if told:
        raise CheckpointError(f"{what}: " + "; ".join(told))


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file. Raises OSError where the disk refuses."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, path, metadata)
    except SafetensorError as error:
        raise OSError(str(error).removeprefix("Error while serializing: ")) from error


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """Open a safetensors file. Raises CheckpointError if it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged ({error}); use an earlier checkpoint") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or 'there is no such file'}") from error


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _require_shapes(where: str, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    problems = [f"{name} is missing" for name in wanted if name not in saved]
    problems += [f"{name} has no place in the model" for name in saved if name not in wanted]
    problems += [
        f"{name} has the shape {saved[name]} and should have {wanted[name]}"
        for name in wanted
        if name in saved and saved[name] != wanted[name]
    ]
    if problems:
        rest = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise CheckpointError(f"{where} does not fit the model: " + "; ".join(problems[:8]) + rest)
