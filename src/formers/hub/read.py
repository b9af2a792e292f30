"""From a folder in Hugging Face's format to a model, and to a run folder of ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from formers.data.atomic import write_json
from formers.data.tokenizer import Tokenizer
from formers.errors import CheckpointError
from formers.hub.published import format_of, spec_from_config
from formers.hub.source import CONFIG, open_weights, read_config
from formers.hub.tokens import read_tokenizer
from formers.hub.weights import Account, fill
from formers.model import on_meta
from formers.train.folder import whole_folder
from formers.train.run import Run


@dataclass(frozen=True)
class Imported:
    """What an import did. tokenizer: whether the folder held one."""

    model_type: str
    spec: Any
    weights: Account
    tokenizer: bool

    def __str__(self) -> str:
        types = " and ".join(self.weights.types)
        wider = "" if self.weights.types == ("float32",) else ", kept as float32"
        told = [f"a {self.model_type} model: {self.weights.read} tensors in {types}{wider}"]
        if self.weights.left_out:
            told.append(f"left out {', '.join(self.weights.left_out)}, which the config says already")
        if not self.tokenizer:
            told.append("the folder holds no tokenizer")
        return "; ".join(told)


def load(folder: str | Path) -> nn.Module:
    """The model of a local folder in Hugging Face's format, in evaluation mode.

    Weights in bfloat16 or float16 become float32, which holds each of them exactly. The tokenizer beside them is read
    by `formers.data.tokenizer.load_tokenizer`. Raises CheckpointError with everything that cannot be mapped.
    """
    return _read(Path(folder))[1]


def import_folder(folder: str | Path, run: str | Path) -> Imported:
    """Write the model of a folder in Hugging Face's format, with its tokenizer, as a run folder of ours.

    The run appears when it is whole. Its config.json keeps what the spec does not say (token ids, lengths, labels), for
    `export`. Raises CheckpointError if anything cannot be mapped, or if `run` holds something.
    """
    folder, run = Path(folder), Path(run)
    require_free(run)
    config, model, account = _read(folder)
    spec: Any = model.spec
    tokenizer = read_tokenizer(folder, config, spec.vocab)
    hold(run, model, tokenizer, config)
    return Imported(config["model_type"], spec, account, tokenizer is not None)


def hold(run: Path, model: Any, tokenizer: Tokenizer | None, config: Mapping[str, Any]) -> None:
    """Write a model that was not trained here as a run folder, which appears when it is whole.

    config: what its spec does not say, for `export`. Raises CheckpointError if the folder cannot be written.
    """
    try:
        with whole_folder(run) as unfinished:
            Run(unfinished).hold(model, model.spec, tokenizer)
            if config:
                write_json(unfinished / CONFIG, dict(config))
    except OSError as error:
        raise CheckpointError(f"{run} cannot be written: {error.strerror or error}; choose another folder") from error


def require_free(folder: Path) -> None:
    """Raise CheckpointError if there is anything at that place."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise CheckpointError(f"{folder} is not empty; name a new folder")


def _read(folder: Path) -> tuple[dict[str, Any], nn.Module, Account]:
    config = read_config(folder)
    where = str(folder / CONFIG)
    known = format_of(config, where)
    with open_weights(folder) as tensors:
        spec = spec_from_config(config, tensors.shapes, where)
        model = on_meta(spec)
        account = fill(model, known.table(spec, config), tensors, str(folder))
    return config, model, account
