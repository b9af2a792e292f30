"""A folder in Hugging Face's format: its config.json, and its tensors from one or several safetensors files."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from formers.data.atomic import read_json
from formers.errors import CheckpointError

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
OTHER = (".h5", ".msgpack", ".gguf", ".onnx")
FLOATS = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


class Tensors:
    """The tensors of a checkpoint, read from the disk one at a time."""

    def __init__(self, holders: Mapping[str, Any]) -> None:
        self._holders = holders
        self.shapes = {name: tuple(file.get_slice(name).get_shape()) for name, file in holders.items()}
        self.types = {name: str(file.get_slice(name).get_dtype()) for name, file in holders.items()}

    def get(self, name: str) -> Tensor:
        """One tensor, in the type in which it was saved."""
        tensor: Tensor = self._holders[name].get_tensor(name)
        return tensor


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a folder. Raises CheckpointError where there is none, DataError where it is damaged."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder; name a local folder with config.json and model.safetensors")
    if not (folder / CONFIG).is_file():
        mend = "it is a run of formers already" if (folder / "spec.json").is_file() else "download it with its weights"
        raise CheckpointError(f"{folder} holds no {CONFIG}, so it is no model in Hugging Face's format; {mend}")
    return read_json(folder / CONFIG)


@contextmanager
def open_weights(folder: Path) -> Iterator[Tensors]:
    """Open the weights of a folder. Raises CheckpointError if they are missing, damaged, or not in safetensors."""
    with ExitStack() as stack:
        holders: dict[str, Any] = {}
        for path in _files(folder):
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except SafetensorError as error:
                raise CheckpointError(f"{path} is damaged ({error}); download it again") from error
            except OSError as error:
                raise CheckpointError(f"{path} cannot be read: {error.strerror or 'there is no such file'}") from error
            twice = sorted(holders.keys() & file.keys())
            if twice:
                raise CheckpointError(f"{folder} holds {', '.join(twice)} in two files; keep the one that is right")
            holders |= dict.fromkeys(file.keys(), file)
        yield Tensors(holders)


def _files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        raise CheckpointError(f"{folder} holds no {WEIGHTS}; {_instead(folder)}")
    shards = read_json(folder / INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise CheckpointError(f"{folder / INDEX} is damaged: it has no weight_map; download it again")
    names = sorted({str(name) for name in shards.values()})
    for name in names:
        if Path(name).name != name:
            raise CheckpointError(f"{folder / INDEX} names {name!r}, which is not in this folder; download it again")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder} lacks {', '.join(missing)}, which {INDEX} names; download the rest of it")
    return [folder / name for name in names]


def _instead(folder: Path) -> str:
    """What to do about weights that are in other files, or in none."""
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    if pickled:
        return (
            f"{pickled[0]} is a pickle, which can run code and is never loaded here: where you trust it, load it with "
            "transformers' from_pretrained and write it with save_pretrained(..., safe_serialization=True)"
        )
    other = sorted(path.name for path in folder.iterdir() if path.suffix in OTHER)
    if other:
        return f"{other[0]} is of another format: save the model with transformers as safetensors"
    return "download the weights as safetensors"
