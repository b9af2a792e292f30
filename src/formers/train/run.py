"""The folder of a training run: what lies where, and how it is opened again."""

import re
from pathlib import Path
from typing import Any

from torch import nn

from formers.data.atomic import replacing
from formers.data.tokenizer import Tokenizer, load_tokenizer
from formers.errors import CheckpointError, DataError
from formers.spec import Spec, diff, from_json, to_json
from formers.train.checkpoint import MODEL, require_whole, save_checkpoint
from formers.train.folder import remove_folder, sweep
from formers.train.spec import TrainSpec
from formers.train.weights import SPEC, open_tensors, read_weights, require_equal

STEP = re.compile(r"step-(\d+)")
# What may change between the parts of a run: the losses do not depend on it.
FREE = frozenset({"evaluate_every", "evaluate_tokens", "checkpoint_every", "keep"})


class Run:
    """A run folder: spec.json, train.json, the tokenizer, metrics.jsonl, loss.png and checkpoints/step-N/."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.metrics = self.root / "metrics.jsonl"
        self.plot = self.root / "loss.png"

    @property
    def started(self) -> bool:
        """Whether a training run lives here."""
        return self._train.is_file()

    @property
    def has_spec(self) -> bool:
        """Whether the folder says which model its checkpoints are of."""
        return self._spec.is_file()

    @property
    def spec(self) -> Spec:
        """The model's spec. Raises CheckpointError if there is none."""
        return _read_spec(self._spec)

    def start(self, spec: Spec, train: TrainSpec, tokenizer: Tokenizer | None) -> None:
        """Write what a new run is. Raises CheckpointError if the folder cannot be written."""
        self._write_start({self._spec: to_json(spec), self._train: to_json(train)}, tokenizer)

    def _write_start(self, texts: dict[Path, str], tokenizer: Tokenizer | None) -> None:
        try:
            (self.root / "checkpoints").mkdir(parents=True, exist_ok=True)
            if tokenizer is not None:
                tokenizer.save(self.root)
            for path, text in texts.items():
                with replacing(path) as (stream,):
                    stream.write(text.encode())
        except (OSError, DataError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise CheckpointError(f"{self.root} cannot hold a run: {reason}; choose another folder") from error

    def hold(self, model: nn.Module, spec: Spec, tokenizer: Tokenizer | None) -> None:
        """Keep a model that was not trained here (an imported one, say) as checkpoint 0, for `load_model`."""
        self._write_start({self._spec: to_json(spec)}, tokenizer)
        save_checkpoint(self.checkpoint(0), model, spec)

    def require_continued(self, spec: Spec, train: TrainSpec) -> None:
        """Raise CheckpointError, telling the differences, unless these are the specs that the run was started with."""
        require_equal(self.spec, spec, f"{self.root} trains another model")
        old = _read_spec(self._train)
        told = [
            f"{path}: {was!r} was saved, {now!r} is given" for path, was, now in diff(old, train) if path not in FREE
        ]
        if told:
            raise CheckpointError(f"{self.root} was started with another training spec: " + "; ".join(told))

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint after that many updates lies."""
        return self.root / "checkpoints" / f"step-{step:06d}"

    def checkpoints(self) -> list[Path]:
        """All whole checkpoints, the oldest first."""
        folder = self.root / "checkpoints"
        found = [path for path in folder.iterdir() if STEP.fullmatch(path.name)] if folder.is_dir() else []
        return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))

    def prune(self, keep: int) -> None:
        """Remove all but the newest checkpoints."""
        for path in self.checkpoints()[:-keep]:
            remove_folder(path)

    def sweep(self) -> None:
        """Remove what a killed process left unfinished."""
        sweep(self.root / "checkpoints")
        for part in self.root.glob(".*.part"):
            part.unlink(missing_ok=True)

    @property
    def _spec(self) -> Path:
        return self.root / "spec.json"

    @property
    def _train(self) -> Path:
        return self.root / "train.json"


def load_model(path: str | Path) -> nn.Module:
    """The trained model, in evaluation mode, of a run folder (its last checkpoint) or of one checkpoint.

    Raises CheckpointError if there is none, or if it is damaged or of another model than the run says.
    """
    checkpoint = _checkpoint_of(Path(path))
    require_whole(checkpoint)
    with open_tensors(checkpoint / MODEL) as file:
        saved = (file.metadata() or {}).get(SPEC)
    if saved is None:
        raise CheckpointError(f"{checkpoint / MODEL} does not say which model it is of; import it instead")
    spec = from_json(saved, str(checkpoint / MODEL))
    run = Run(checkpoint.parent.parent)
    if run.has_spec:
        require_equal(spec, run.spec, f"{checkpoint} is of another model than {run.root / 'spec.json'}")
    model = spec.build()
    read_weights(checkpoint / MODEL, model, spec)
    return model.eval()


def run_folder(path: Path) -> Path:
    """The run itself, or the run that a checkpoint belongs to."""
    return path.parent.parent if (path / MODEL).is_file() else path


def load_run_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a run folder, or of the run that a checkpoint belongs to. Raises DataError if there is none."""
    return load_tokenizer(run_folder(Path(path)))


def _checkpoint_of(path: Path) -> Path:
    if (path / MODEL).is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"{path} is no folder; name the folder of a run")
    checkpoints = Run(path).checkpoints()
    if not checkpoints:
        raise CheckpointError(f"{path} holds no checkpoint; name the folder of a run that has saved one")
    return checkpoints[-1]


def _read_spec(path: Path) -> Any:
    try:
        return from_json(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; is this the folder of a run?") from error
