"""Images, token by token: each from those that were generated before it, and for an encoder-decoder from what is given.

Parmar et al. 2018, arXiv:1802.05751.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from formers.data.atomic import replacing
from formers.data.chance import shuffled
from formers.data.images import Images, Pixels, hold_out
from formers.errors import ConfigError, DataError
from formers.spec import Spec
from formers.tasks.chunked_loss import lost
from formers.tasks.frame import Frame
from formers.tasks.score import Tally
from formers.train.digest import digest_of_file
from formers.train.spec import TrainSpec
from formers.train.task import Batch, Loss, Size, Tick, device_of, to_device, untold

TRAIN, HELD_OUT = "train.npy", "held_out.npy"
START = 0  # what stands before the first token: an intensity, so that no id is there for it alone


@dataclass(frozen=True)
class PreparedImages:
    """Images (N, H, W, C) uint8: what to train on, what is held out, and what identifies both."""

    train: Pixels
    held_out: Pixels
    fingerprints: dict[str, str]

    tokenizer: None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        _, height, width, channels = self.train.shape
        return height, width, channels


def prepare_images(images: Images, folder: Path) -> PreparedImages:
    """Write images into a folder, some of them held out. Raises DataError if it cannot, or there are too few."""
    with replacing(folder / TRAIN, folder / HELD_OUT) as streams:
        for stream, part in zip(streams, hold_out(images), strict=True):
            np.save(stream, part)
    return open_images(folder)


def open_images(folder: Path) -> PreparedImages:
    """Open what `prepare_images` wrote. Raises DataError if it is not there, or not whole."""
    parts, fingerprints = [], {}
    for name in (TRAIN, HELD_OUT):
        path = folder / name
        try:
            parts.append(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{path} cannot be read ({error}), so the run does not know its images; give --data"
            ) from error
        fingerprints[path.stem] = digest_of_file(path)
    return PreparedImages(parts[0], parts[1], fingerprints)


class Pictures:
    """Whole images, each once an epoch; a `Task`. The decoder reads START and all tokens but the last."""

    def __init__(self, prepared: PreparedImages, spec: TrainSpec, model: Spec) -> None:
        self._prepared, self._spec, self._frame = prepared, spec, Frame.of(model)

    @property
    def data(self) -> dict[str, str]:
        return self._prepared.fingerprints

    def require(self, spec: Spec) -> None:
        if Frame.of(spec) != self._frame:
            raise ConfigError(f"the task was made for a model of other images: {self._frame} and not {Frame.of(spec)}")
        self._frame.require(self._prepared.shape)

    def batch(self, step: int) -> Batch:
        """inputs and targets, (B, T) int64 each; and source (B, S) for an encoder-decoder."""
        count, rows = len(self._prepared.train), self._spec.batch
        number = np.arange((step - 1) * rows, step * rows)
        chosen = shuffled(number % count, count, self._spec.seed, number // count)
        return batch_of(self._frame, np.asarray(self._prepared.train[chosen]))

    def size(self, batch: Batch) -> Size:
        read = batch["inputs"].numel() + (batch["source"].numel() if "source" in batch else 0)
        return Size(read, batch["targets"].numel())

    def loss(self, model: Any, batch: Batch) -> Loss:
        return _loss(model, batch, self._spec)

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """See `evaluate_images`."""
        return evaluate_images(model, self._prepared.held_out, self._spec, limit, tick)


def evaluate_images(
    model: nn.Module, images: Pixels, spec: TrainSpec, limit: int | None = None, tick: Tick = untold
) -> dict[str, float]:
    """What a model needs for images (N, H, W, C): nats and bits_per_dim of each number that it writes, perplexity, tokens,
    and images. limit: look at about so many tokens only.

    Intensities that are brought to fewer levels are fewer bits: figures compare at the same number of levels alone.
    """
    frame = Frame.of(cast(Spec, model.spec))
    frame.require(images.shape[1:])
    count = len(images) if limit is None else max(1, min(len(images), limit // frame.written.length))
    plain, tally, done = spec.replace(label_smoothing=0.0), Tally(), 0
    for batch in _batches(frame, images[:count], spec.batch):
        with torch.no_grad():
            tally.add(_loss(model, to_device(batch, device_of(model)), plain))
        done += len(batch["targets"])
        tick(done / count)
    found = tally.score(count * frame.written.length)
    return found | {"bits_per_dim": found["nats"] / math.log(2), "images": count}


def batch_of(frame: Frame, images: Pixels) -> Batch:
    """Images (B, H, W, C) as a model of that frame reads them."""
    targets = frame.targets(images)
    start = targets.new_full((len(targets), 1), START)
    batch = {"inputs": torch.cat([start, targets[:, :-1]], 1), "targets": targets}
    return batch if frame.given is None else batch | {"source": frame.sources(images)}


def _batches(frame: Frame, images: Pixels, rows: int) -> Iterator[Batch]:
    return (batch_of(frame, np.asarray(images[at : at + rows])) for at in range(0, len(images), rows))


def _loss(model: Any, batch: Batch, spec: TrainSpec) -> Loss:
    inputs: tuple[Tensor, ...] = (batch["inputs"],)
    if "source" in batch:
        inputs = batch["source"], *inputs
    return lost(model, batch["targets"], *inputs, chunk=spec.loss_chunk, smoothing=spec.label_smoothing)
