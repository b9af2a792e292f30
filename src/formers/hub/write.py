"""From a model or a run folder of ours to a folder in Hugging Face's format."""

from pathlib import Path
from typing import Any

from torch import nn

from formers.data.atomic import read_json, write_json
from formers.data.tokenizer import Tokenizer, load_tokenizer
from formers.errors import CheckpointError, DataError
from formers.hub.format import POSITIONS
from formers.hub.published import FORMATS, config_from_spec
from formers.hub.read import require_free
from formers.hub.source import CONFIG, WEIGHTS
from formers.hub.tokens import write_tokenizer
from formers.hub.weights import publish
from formers.train.checkpoint import MODEL
from formers.train.folder import whole_folder
from formers.train.run import load_model
from formers.train.weights import write_tensors


def export(model: str | Path | nn.Module, folder: str | Path, tokenizer: Tokenizer | None = None) -> None:
    """Write config.json, model.safetensors and the tokenizer, for `from_pretrained` of transformers.

    model: a run folder (its last checkpoint), a checkpoint, or a model, whose tokenizer is then given by itself.
    The folder appears when it is whole. Raises ConfigError with all that no published family can say of the model, and
    CheckpointError if `folder` holds something or cannot be written.
    """
    folder = Path(folder)
    require_free(folder)
    kept: dict[str, Any] = {}
    if not isinstance(model, nn.Module):
        root = _root(Path(model))
        model = load_model(Path(model))
        tokenizer = tokenizer or tokenizer_of(root)
        kept = read_json(root / CONFIG) if (root / CONFIG).is_file() else {}
    spec: Any = model.spec
    plain = config_from_spec(spec)
    known, config = FORMATS[plain["model_type"]], _settings(plain, kept, tokenizer)
    config = known.counted(config, known.ahead(config) - known.ahead(plain))
    config["dtype"] = str(next(model.parameters()).dtype).removeprefix("torch.")
    tensors = publish(model, known.table(spec, config), config.get(POSITIONS, 0))
    try:
        with whole_folder(folder) as unfinished:
            write_tensors(unfinished / WEIGHTS, tensors, {"format": "pt"})
            write_json(unfinished / CONFIG, config)
            if tokenizer is not None:
                write_tokenizer(tokenizer, unfinished)
    except (OSError, DataError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise CheckpointError(f"{folder} cannot be written: {reason}; choose another folder") from error


def _settings(config: dict[str, Any], kept: dict[str, Any], tokenizer: Tokenizer | None) -> dict[str, Any]:
    """A whole config.json: the spec's word counts first, then what was kept of an import, then what is usual."""
    unsaid = FORMATS[config["model_type"]].unsaid
    said = {name: value for name, value in config.items() if name not in unsaid}
    start, end, pad = (getattr(tokenizer, role, None) for role in ("start", "end", "pad"))
    ids = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": pad}
    if "decoder_start_token_id" in unsaid:
        first = end if start is None else start
        ids |= {"bos_token_id": None, "decoder_start_token_id": first, "forced_eos_token_id": end}
    known = {name: number for name, number in ids.items() if number is not None or name not in unsaid}
    settings = {**unsaid, **known, **kept, **said}
    settings.pop("torch_dtype", None)
    if settings.get("decoder_start_token_id", 0) is None:
        raise CheckpointError(
            "config.json must say which id the decoder starts from, and there is no tokenizer that has a start or end "
            "id; give the tokenizer that the model was trained with"
        )
    return settings


def _root(path: Path) -> Path:
    """The run folder of a run folder, or of one of its checkpoints."""
    return path.parent.parent if (path / MODEL).is_file() else path


def tokenizer_of(run: Path) -> Tokenizer | None:
    """The tokenizer of a run folder, if it holds one."""
    files = ("tokenizer.json", "tokenizer_config.json")
    return load_tokenizer(run) if any((run / name).is_file() for name in files) else None
