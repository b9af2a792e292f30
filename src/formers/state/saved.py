"""A state as one file: a stream goes on in another process exactly where it stopped."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from formers.data.atomic import replacing
from formers.errors import CheckpointError
from formers.places import Places
from formers.state.value import Log

STRUCTURE = "structure"

# How a part of a state is written down: what it is, and what it holds.
Node = list[Any]


def save_state(path: str | Path, state: Any) -> None:
    """Write what a model remembers, whatever it is made of; the file is whole, or what was there before.

    A safetensors file with the tensors; how they hang together stands in its header as JSON. Raises DataError where the
    disk refuses, and TypeError for a state that holds what no state may: it is to be tensors, logs and places, and numbers
    and texts, in tuples and dictionaries.
    """
    written = _Written()
    structure = {"state": written.node(state), "places": written.places}
    with replacing(Path(path)) as (stream,):
        stream.write(save(written.tensors, {STRUCTURE: json.dumps(structure)}))


def load_state(path: str | Path, device: str | torch.device = "cpu") -> Any:
    """Read a state back, its tensors on a device. The parts of the model that made it must have been imported.

    Nothing in the file is run. Raises CheckpointError if it is missing, damaged, or of parts that are not known here.
    """
    try:
        with safe_open(str(path), framework="pt", device=str(device)) as file:
            structure = json.loads((file.metadata() or {}).get(STRUCTURE, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}; begin the stream anew") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or 'there is no such file'}") from error
    if structure is None:
        raise CheckpointError(f"{path} holds tensors and no state of a model; give a file that save_state wrote")
    try:
        return _Read(tensors, structure["places"], torch.device(device)).part(structure["state"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} holds no state that can be used here: {error}") from error


class _Written:
    """The parts of a state on their way out: tensors by number, and each of its places once."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.places: list[dict[str, Any]] = []
        self._seen: dict[int, int] = {}

    def node(self, part: Any) -> Node:
        if isinstance(part, Tensor):
            return ["tensor", self._tensor(part)]
        if isinstance(part, Log):
            return ["log", self._tensor(part.view)]
        if isinstance(part, Places):
            return ["places", self._places(part)]
        if isinstance(part, tuple):
            kind = _name(type(part)) if hasattr(part, "_fields") else None
            return ["tuple", kind, [self.node(item) for item in part]]
        if isinstance(part, dict):
            return ["dict", [[self.node(name), self.node(item)] for name, item in part.items()]]
        if part is None or isinstance(part, (bool, int, float, str)):
            return ["value", part]
        raise TypeError(f"a state holds a {type(part).__name__}, which cannot be saved: make it of tensors and tuples")

    def _tensor(self, tensor: Tensor) -> str:
        name = str(len(self.tensors))
        self.tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        return name

    def _places(self, at: Places) -> int:
        if id(at) not in self._seen:  # layers share their places, and so share masks
            found: dict[str, Any] = {"marks": {name: self._tensor(mark) for name, mark in at.marks.items()}}
            if at.start is not None:
                found |= {"start": at.start, "length": at.length, "on_device": at.device is not None}
            else:
                found |= {"pos": self._tensor(at.pos), "real": None if at.real is None else self._tensor(at.real)}
            self._seen[id(at)] = len(self.places)
            self.places.append(found)
        return self._seen[id(at)]


class _Read:
    """The parts of a state on their way in."""

    def __init__(self, tensors: Mapping[str, Tensor], places: list[dict[str, Any]], device: torch.device) -> None:
        self._tensors, self._device = tensors, device
        self._kinds = {_name(kind): kind for kind in tuple.__subclasses__() if hasattr(kind, "_fields")}
        self._places = [self._at(found) for found in places]

    def part(self, node: Node) -> Any:
        what, *rest = node
        if what == "tensor":
            return self._tensors[rest[0]]
        if what == "log":
            return Log(self._tensors[rest[0]])
        if what == "places":
            return self._places[rest[0]]
        if what == "tuple":
            items = [self.part(item) for item in rest[1]]
            return tuple(items) if rest[0] is None else self._kind(rest[0])(*items)
        if what == "dict":
            return {self.part(name): self.part(item) for name, item in rest[0]}
        if what == "value":
            return rest[0]
        raise ValueError(f"what is a {what!r}?")

    def _kind(self, name: str) -> Any:
        if name not in self._kinds:
            raise ValueError(f"it is of {name}, which is not imported here; build the model first")
        return self._kinds[name]

    def _at(self, found: dict[str, Any]) -> Places:
        marks = {name: self._tensors[number] for name, number in found["marks"].items()}
        if "start" in found:
            return Places.run(found["start"], found["length"], self._device if found["on_device"] else None, marks)
        real = None if found["real"] is None else self._tensors[found["real"]]
        return Places(self._tensors[found["pos"]], real, marks)


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"
