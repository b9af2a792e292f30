"""`formers generate --picture`: images of a trained model, in one file."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from formers.cli.parser import picture_file
from formers.cli.progress import ticking
from formers.data.images import Pixels, read_image, write_grid
from formers.decode import Sampling
from formers.decode.engine import Choice
from formers.errors import DataError, FormersError
from formers.tasks.frame import Frame
from formers.tasks.paint import paint
from formers.train import load_model
from formers.train.device import pick_device

COUNT = 16
OF_TEXT = {"prompt_file": "--prompt-file", "stop": "--stop", "beam": "--beam"}


def declare_picture(parser: argparse.ArgumentParser) -> None:
    """Where to, and how many."""
    told = "a model of images: write a PNG of some that it generates; --prompt names an image to begin from, see docs/sparse.md"
    parser.add_argument("--picture", type=picture_file, metavar="FILE.png", help=told)
    parser.add_argument("--count", type=int, metavar="N", help=f"images in the picture, for each prompt ({COUNT})")


def paint_picture(options: argparse.Namespace, sampling: Sampling, engine: Callable[[Any], Choice]) -> None:
    """Generate images, write them into one picture, and say where. Raises FormersError for what cannot be done so."""
    for name, option in OF_TEXT.items():
        if getattr(options, name):
            raise FormersError(f"{option} is for text; leave it out, or --picture")
    count = COUNT if options.count is None else options.count
    if count < 1:
        raise FormersError(f"a picture of {count} images shows nothing; give --count {COUNT}")
    model: Any = load_model(options.model).to(pick_device())
    frame = Frame.of(model.spec)
    given = _given(frame, [Path(name) for name in options.prompts or []], model.spec.name).repeat_interleave(count, 0)
    with ticking("painting") as tick:
        tokens = paint(
            model,
            given.tolist(),
            frame.written.length,
            sampling=sampling,
            seed=options.seed,
            engine=engine(model),
            tick=tick,
        )
    images = frame.images(tokens, given)
    write_grid(options.picture, images)
    _, height, width, _ = images.shape
    print(f"{len(images)} images of {height} x {width} pixels are in {options.picture}")


def _given(frame: Frame, paths: list[Path], name: str) -> Tensor:
    """(N, S): for each prompt what the encoder reads, or of a decoder the tokens that an image begins with."""
    if not paths and frame.given is not None:
        what = "its upper part" if frame.completes else "a smaller one"
        raise FormersError(f"{name} paints an image from {what}; give it by --prompt image.png")
    if not paths:
        return torch.zeros(1, 0, dtype=torch.int64)
    return torch.cat([_tokens(frame, path, read_image(path)[None]) for path in paths])


def _tokens(frame: Frame, path: Path, image: Pixels) -> Tensor:
    shape, canvas = image.shape[1:], frame.given
    if shape == frame.shape:
        return frame.targets(image)[:, : frame.upper_half] if canvas is None else frame.sources(image)
    if canvas is not None and shape == (canvas.height, canvas.width, canvas.channels):
        return frame.given_as_is(image)
    wanted = [frame.shape] + ([] if canvas is None else [(canvas.height, canvas.width, canvas.channels)])
    told = " or ".join(f"{height} x {width} with {channels}" for height, width, channels in wanted)
    raise DataError(
        f"{path} has {shape[0]} x {shape[1]} pixels with {shape[2]} channels, and the model begins from {told}; "
        "bring it to that size"
    )
